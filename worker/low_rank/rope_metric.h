// The mean over relative positions of rotated second moments: what a query sees of keys, and a key
// of queries, once rotary position embedding has turned them.
#pragma once

#include <ATen/core/Tensor.h>

#include <complex>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace latentforge::low_rank {

// phi(omega) = sum_D (L - D) e^{-i omega D} / sum_D (L - D) over the lags D = 0 .. L - 1: each lag
// counts as often as a causal sequence of L tokens holds it. In closed form by geometric sums,
// accurate to rounding at every omega (radians a token). L is at least 1.
std::complex<double> CausalPhi(double omega, int64_t length);

// A query at position m scores a key at n by q^T R_{n-m} k, where R_Delta turns the channel pair
// (u_j, v_j) = (x_j, x_{j+d/2}) by theta_j Delta, that is z = u + i v to e^{i theta_j Delta} z
// (half-split layout, rotate_half of Hugging Face). With a weight w_D for each lag D = m - n, the
// moments S of keys count in the metric of queries as sum_D w_D R_{-D} S R_{-D}^T, those of queries
// in the metric of keys as sum_D w_D R_{-D}^T S R_{-D}.
//
// In closed form, for S in blocks S_uu, S_uv, S_vu, S_vv (derived: the moments of z are
// H = E[z z^*] and P = E[z z^T], whose entries j k turn by theta_j - theta_k and theta_j +
// theta_k):
//   H = (S_uu + S_vv) + i (S_vu - S_uv), H_jk *= phi(theta_j - theta_k)
//   P = (S_uu - S_vv) + i (S_vu + S_uv), P_jk *= phi(theta_j + theta_k)
// with phi(omega) = sum_D w_D e^{-i omega D}, and its conjugate for queries.
//
// Weights are scaled to a sum of 1. Immutable; safe for concurrent use.
class RopeMetric {
 public:
  // `frequencies`: theta, [d/2] fp64, radians a token, as the model scales them. `lag_weights`:
  // w_0, w_1, ..., fp64, for instance the mean attention at each lag. InvalidArgument for wrong
  // shapes and types and for weights that are negative or all zero; Internal for values that are
  // not finite.
  static absl::StatusOr<RopeMetric> FromLagWeights(const at::Tensor& frequencies,
                                                   const at::Tensor& lag_weights);

  // The lags of causal sequences of `length` tokens, w_D ~ length - D. Errors as above;
  // InvalidArgument for a length below 1.
  static absl::StatusOr<RopeMetric> Causal(const at::Tensor& frequencies, int64_t length);

  // d.
  int64_t head_dim() const { return 2 * difference_.size(0); }

  // The means above of `moments` [..., d, d], which need not be symmetric. A positive semidefinite
  // matrix stays one up to rounding.
  at::Tensor ForQueries(const at::Tensor& key_moments) const;
  at::Tensor ForKeys(const at::Tensor& query_moments) const;

 private:
  RopeMetric(at::Tensor difference, at::Tensor sum)
      : difference_(std::move(difference)), sum_(std::move(sum)) {}

  at::Tensor difference_;  // [d/2, d/2] complex, phi(theta_j - theta_k)
  at::Tensor sum_;         // [d/2, d/2] complex, phi(theta_j + theta_k)
};

}  // namespace latentforge::low_rank
