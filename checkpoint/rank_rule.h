// How many parameters a rank costs, and the rank that a share of a matrix's parameters buys.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace latentforge::checkpoint {

// How a product of two factors is stored.
enum class RankRule {
  kBlockIdentity,  // r x r of one factor is the identity: r (out + in - r) parameters
  kNaive,          // both factors whole: r (out + in)
};

// Parameters of a rank from 0 to min(out, in), which are also its multiplications a token.
int64_t Parameters(RankRule rule, int64_t out, int64_t in, int64_t rank);

// The largest rank whose parameters are at most (1 - ratio) of the dense matrix's out * in,
// rounded down to a multiple of `multiple` (LatentLLM, the rank rules of its block identity and
// of plain factors). A ratio such as 0.19 counts as exact although its double does not lie on it.
// InvalidArgument for sizes or a multiple below 1 and for a ratio outside [0, 1); OutOfRange when
// not even the first multiple fits, with the largest ratio that one can meet.
absl::StatusOr<int64_t> RankForRatio(RankRule rule, int64_t out, int64_t in, double ratio,
                                     int64_t multiple = 1);

}  // namespace latentforge::checkpoint
