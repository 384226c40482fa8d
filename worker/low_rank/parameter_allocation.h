// Divides one budget of parameters over many matrices, so that their predicted losses sum to the
// least.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/rank_rule.h"

namespace latentforge::low_rank {

using checkpoint::RankRule;

// A matrix that may stay dense, at no loss, or get a rank.
struct CompressibleMatrix {
  int64_t out = 0;
  int64_t in = 0;
  // What each latent is worth, in the order in which a rank takes them, at most min(out, in) of
  // them and in the same unit for all matrices: a rank loses the sum of those beyond it.
  std::vector<double> spectrum;
  RankRule rule = RankRule::kBlockIdentity;
  // Ranks are multiples of it, and at least it.
  int64_t multiple = 1;
  // Parameters of the dense form; out * in unless given.
  std::optional<int64_t> dense_parameters;
};

struct ParameterAllocation {
  std::vector<std::optional<int64_t>> ranks;  // in the order of the matrices; none means dense
  int64_t parameters = 0;
  double loss = 0;
  // No allocation within the budget has a smaller loss: loss - least_loss bounds what a better one
  // could gain.
  double least_loss = 0;
};

// At most (1 - ratio) of the parameters of all dense forms, spent where they save the most loss
// (derived; the slides give every matrix the same ratio).
//
// The last ranks of block identity are cheap, out + in - 2 r - 1 parameters each, so that losses
// are not convex in the parameters and a step that does not pay by itself may lead to one that
// does, the dense form above all. Over the lower convex hulls of each matrix's (parameters, loss)
// the relaxed problem, in which a matrix may stand between two forms, is solved exactly by taking
// the hulls' segments by descending slope; its loss is least_loss. What the first segment that does
// not fit leaves over then goes, as long as it buys anything, to the single step of any matrix that
// saves the most. The loss lies above the optimum by less than that segment saves.
//
// Equal gains go to the earlier matrix; what buys nothing is not spent. InvalidArgument, naming the
// matrix, for sizes, a multiple or dense parameters below 1, for an empty or too long spectrum and
// one that is negative or not finite, for no matrices, and for a ratio outside [0, 1); OutOfRange
// when the least forms of all matrices do not fit, with the largest ratio at which they do.
absl::StatusOr<ParameterAllocation> AllocateParameters(
    const std::vector<CompressibleMatrix>& matrices, double ratio);

}  // namespace latentforge::low_rank
