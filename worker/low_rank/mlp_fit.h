// The weight steps that all compressions of an MLP have in common: its maps fitted one by one, and
// `down` refitted to what the compressed maps before it really give it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/low_rank/mlp.h"
#include "worker/low_rank/mlp_error.h"
#include "worker/low_rank/mlp_moments.h"
#include "worker/low_rank/rank_regression.h"

namespace latentforge::low_rank {

struct MlpFitOptions {
  // Of every covariance, towards the original weights (RegressionOptions). At least 0. Above 0 no
  // fit ever needs an eigenbasis of [f, f], however few the tokens.
  double damping = 1e-3;
  // Maps that have a bias always get one, and are fitted to centred moments. True: the others too,
  // at the price of their outputs' width in parameters.
  bool add_biases = false;
};

// A compressed MLP and what it costs on its calibration tokens.
struct MlpCompression {
  LowRankMlp mlp;
  MlpError error;
  // The loss of each state that was considered, in turn, with `down` refitted; the least is
  // `error.loss`.
  std::vector<double> losses;
};

// The regression from which a stand-in for `map` is taken, at every rank. Errors as
// RankRegression::Solve.
absl::StatusOr<RankRegression> FitMap(const Linear& map, const RegressionMoments& moments,
                                      const MlpFitOptions& options, const at::Tensor& metric = {});

// `up` or `gate` alone, from its inputs: root-covariance compression where the inputs are the
// original's, and the best prediction of the original's values where they are not.
absl::StatusOr<LowRank> FitInnerMap(const Linear& map, const StreamMoments& streams, int64_t rank,
                                    const MlpFitOptions& options, const at::Tensor& metric = {});

struct Refit {
  LowRankMlp mlp;
  MlpError error;
};

// `mlp` (its maps into the inner width) with the `down` of `rank` that predicts the original's
// outputs best from the real activations h = sigma(up z): without damping, no other `down` of that
// rank loses less, whatever it was fitted to (derived). The error is that of the result, in closed
// form. One pass (ActivationMoments), then three matrices [f, f] in fp64 at a time (6.4 GB at
// f = 16,384), f^3 / 6 + 2 d f^2 multiplications, and an eigenproblem of [d, d]. Errors as
// VisitChunks and RankRegression.
absl::StatusOr<Refit> RefitDown(const Mlp& original, LowRankMlp mlp, int64_t rank,
                                const MlpTokens& tokens, const MlpFitOptions& options);

}  // namespace latentforge::low_rank
