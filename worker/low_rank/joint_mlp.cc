#include "worker/low_rank/joint_mlp.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::low_rank {
namespace {

absl::Status CheckOptions(const JointMlpOptions& options) {
  LF_RETURN_IF_ERROR(CheckPenalties(options.penalties));
  if (options.gate_steps < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("gate steps is ", options.gate_steps, ", expected at least 1"));
  }
  if (options.rounds < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rounds is ", options.rounds, ", expected at least 0"));
  }
  if (!(options.tolerance >= 0 && options.tolerance < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tolerance is ", options.tolerance, ", expected at least 0 and less than 1"));
  }
  return absl::OkStatus();
}

// The weights that a round of auxiliary values is computed from.
struct Round {
  LowRankMlp mlp;
  HiddenUpdate update_hidden;
};

// What a round made of a chunk.
struct Values {
  at::Tensor y;       // the original's outputs
  InnerRows inner;    // Z, S
  at::Tensor hidden;  // Z'
  double loss = 0;    // L4, summed over the chunk's tokens
};

// The auxiliary values of every chunk over the rounds, replayed or kept.
class Trajectory {
 public:
  Trajectory(const Mlp& original, const JointMlpOptions& options)
      : original_(original), options_(options) {}

  void Begin(Round round) {
    if (options_.keep_values) rounds_.clear();
    rounds_.push_back(std::move(round));
  }

  // To be called once for each chunk of a round, in order.
  Values Advance(int64_t chunk, const MlpRows& rows) {
    const Activation activation = original_.activation;
    Values values{.inner = InnerRowsOf(original_, rows.original)};
    values.y = RowsOf(original_.down, Activate(activation, values.inner));
    if (chunk < std::ssize(kept_)) values.inner = kept_[chunk];
    InnerRows fitted;
    for (const Round& round : rounds_) {
      values.hidden = round.update_hidden(Activate(activation, values.inner), values.y);
      fitted = InnerRowsOf(round.mlp, rows.compressed);
      values.inner = UpdatedInnerRows(activation, values.inner, fitted, values.hidden,
                                      options_.penalties, options_.gate_steps);
    }
    values.loss = DecoupledLoss(activation, values.inner, fitted, values.hidden,
                                rounds_.back().mlp.down, values.y, options_.penalties);
    if (options_.keep_values) {
      kept_.resize(std::max(chunk + 1, std::ssize(kept_)));
      kept_[chunk] = values.inner;
    }
    return values;
  }

 private:
  const Mlp& original_;
  const JointMlpOptions& options_;
  std::vector<Round> rounds_;    // all; only the last one where values are kept
  std::vector<InnerRows> kept_;  // by chunk
};

absl::StatusOr<LowRank> FitToSums(const Linear& map, RegressionSums sums, int64_t rank,
                                  const MlpFitOptions& options) {
  LF_ASSIGN_OR_RETURN(const RankRegression regression,
                      FitMap(map, std::move(sums).TakeMoments(), options));
  return regression.At(rank);
}

struct WeightStep {
  LowRankMlp mlp;
  double loss = 0;  // L4 before the step, summed over all tokens
};

// One pass: the values of this round, and every map refitted to them.
absl::StatusOr<WeightStep> FitWeights(const Mlp& original, const MlpRanks& ranks,
                                      const MlpTokens& tokens, const MlpFitOptions& options,
                                      Trajectory& trajectory) {
  const int64_t d = original.width();
  const int64_t f = original.inner_width();
  const bool gated = original.activation == Activation::kSwiGlu;
  RegressionSums up(f, d, original.up.weight);
  RegressionSums gate(gated ? f : 0, d, original.up.weight);
  RegressionSums down(d, f, original.up.weight);
  WeightStep step{.mlp = {.activation = original.activation}};
  LF_RETURN_IF_ERROR(VisitChunks(tokens, d, [&](int64_t chunk, const MlpRows& rows) {
    const Values values = trajectory.Advance(chunk, rows);
    up.Add(rows.compressed, values.inner.up);
    if (gated) gate.Add(rows.compressed, values.inner.gate);
    down.Add(values.hidden, values.y);
    step.loss += values.loss;
    return absl::OkStatus();
  }));
  LF_ASSIGN_OR_RETURN(step.mlp.up, FitToSums(original.up, std::move(up), ranks.up, options));
  if (gated) {
    LF_ASSIGN_OR_RETURN(step.mlp.gate,
                        FitToSums(original.gate, std::move(gate), ranks.gate, options));
  }
  LF_ASSIGN_OR_RETURN(step.mlp.down,
                      FitToSums(original.down, std::move(down), ranks.down, options));
  return step;
}

// The maps into the inner width, one by one.
absl::StatusOr<LowRankMlp> FitInnerMaps(const Mlp& original, const MlpRanks& ranks,
                                        const MlpTokens& tokens, const MlpFitOptions& options) {
  LF_ASSIGN_OR_RETURN(const StreamMoments streams, StreamMomentsOf(original, tokens));
  LowRankMlp mlp{.activation = original.activation};
  LF_ASSIGN_OR_RETURN(mlp.up, FitInnerMap(original.up, streams, ranks.up, options));
  if (original.activation == Activation::kSwiGlu) {
    LF_ASSIGN_OR_RETURN(mlp.gate, FitInnerMap(original.gate, streams, ranks.gate, options));
  }
  return mlp;
}

}  // namespace

absl::StatusOr<MlpCompression> CompressMlpJointly(const Mlp& original, const MlpRanks& ranks,
                                                  const MlpTokens& tokens,
                                                  const JointMlpOptions& options) {
  LF_RETURN_IF_ERROR(CheckMlp(original));
  LF_RETURN_IF_ERROR(CheckRanks(original, ranks));
  LF_RETURN_IF_ERROR(CheckOptions(options));
  LF_ASSIGN_OR_RETURN(LowRankMlp current, FitInnerMaps(original, ranks, tokens, options.fit));
  LF_ASSIGN_OR_RETURN(Refit best, RefitDown(original, current, ranks.down, tokens, options.fit));
  current = best.mlp;
  std::vector<double> losses = {best.error.loss};
  Trajectory trajectory(original, options);
  double decoupled = std::numeric_limits<double>::infinity();
  for (int64_t round = 0; round < options.rounds; ++round) {
    LF_ASSIGN_OR_RETURN(HiddenUpdate update,
                        HiddenUpdate::Prepare(current.down, options.penalties));
    trajectory.Begin({.mlp = current, .update_hidden = std::move(update)});
    LF_ASSIGN_OR_RETURN(WeightStep step,
                        FitWeights(original, ranks, tokens, options.fit, trajectory));
    current = std::move(step.mlp);
    LF_ASSIGN_OR_RETURN(Refit refit, RefitDown(original, current, ranks.down, tokens, options.fit));
    losses.push_back(refit.error.loss);
    if (refit.error.loss < best.error.loss) best = std::move(refit);
    if (step.loss >= (1 - options.tolerance) * decoupled) break;
    decoupled = step.loss;
  }
  return MlpCompression{
      .mlp = std::move(best.mlp), .error = best.error, .losses = std::move(losses)};
}

}  // namespace latentforge::low_rank
