// Sums over an MLP's calibration tokens, a chunk at a time: what its fits need of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/low_rank/mlp.h"
#include "worker/low_rank/rank_regression.h"

namespace latentforge::low_rank {

// Running sums of a regression of t on x in the identity metric. Holds [in, in] and [out, in] in
// fp64, and a chunk takes in (in + out) multiplications a token. Not safe for concurrent use.
class RegressionSums {
 public:
  // Like `like` in type and device.
  RegressionSums(int64_t out, int64_t in, const at::Tensor& like);

  // Of n tokens: x [n, in] and t [n, out].
  void Add(const at::Tensor& x, const at::Tensor& t);

  // The means of all that was added, taking the sums' storage: nothing can be added afterwards.
  RegressionMoments TakeMoments() &&;

 private:
  int64_t tokens_ = 0;
  at::Tensor input_;       // [in]
  at::Tensor covariance_;  // [in, in]
  at::Tensor target_;      // [out]
  at::Tensor cross_;       // [out, in]
  double power_ = 0;
};

// Moments of the MLP's inputs: x of the original model, z behind compressed layers.
struct StreamMoments {
  int64_t tokens = 0;
  at::Tensor original_mean;          // [d], E x
  at::Tensor original_covariance;    // [d, d], E[x x^T]
  at::Tensor compressed_mean;        // [d], E z
  at::Tensor compressed_covariance;  // [d, d], E[z z^T]
  at::Tensor cross;                  // [d, d], E[x z^T]
};

// One pass; four matrices [d, d] at most. Errors as VisitChunks.
absl::StatusOr<StreamMoments> StreamMomentsOf(const Mlp& mlp, const MlpTokens& tokens);

// Of predicting t = W x + b, what the original map computes, from z, without a look at the tokens:
// E[t z^T] = W E[x z^T] + b E z^T. Its power is in `metric` (RegressionOptions).
RegressionMoments MapMoments(const Linear& map, const StreamMoments& streams,
                             const at::Tensor& metric = {});

// Of predicting the original MLP's outputs y from the compressed one's real activations
// h = sigma(up z): what `down` is refitted to. `mlp.down` is not looked at. One pass, with
// E[h h^T] of [f, f] in fp64 (2.1 GB at f = 16384), which f^2 multiplications a token build.
// Errors as VisitChunks.
absl::StatusOr<RegressionMoments> ActivationMoments(const Mlp& original, const LowRankMlp& mlp,
                                                    const MlpTokens& tokens);

}  // namespace latentforge::low_rank
