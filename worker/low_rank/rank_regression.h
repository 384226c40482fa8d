// The map of a given rank that best predicts targets t from inputs x, in closed form: the weight
// step of every alternation, and the fit of a layer to what compressed layers before it feed it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/low_rank/linear.h"

namespace latentforge::low_rank {

// Means over the calibration tokens, in fp64 on one device, none of them centred.
struct RegressionMoments {
  int64_t tokens = 0;
  at::Tensor input_mean;        // [in], E x
  at::Tensor input_covariance;  // [in, in], E[x x^T]
  at::Tensor target_mean;       // [out], E t
  at::Tensor cross;             // [out, in], E[t x^T]
  double target_power = 0;      // E t^T G t
};

struct RegressionOptions {
  // The fit has a bias b, and covariances are centred. Otherwise b = 0.
  bool centred = true;
  // lambda is this times the mean diagonal of the (centred) covariance C. At least 0; at 0 a
  // singular C gives the limit of small lambda, through an eigenbasis of C.
  double damping = 1e-3;
  // W0 [out, in], towards which the damping draws; 0 when undefined.
  at::Tensor prior;
  // G, positive semidefinite, singular or not: [out] for a diagonal, or [out, out]; the identity
  // when undefined.
  at::Tensor metric;
};

// G a of a metric as above and a [out, k].
at::Tensor InMetric(const at::Tensor& metric, const at::Tensor& a);

// Minimises E|t - W x - b|_G^2 + lambda |W - W0|_G^2 over W of rank r, |v|_G^2 = v^T G v, at every
// rank at once. (LatentLLM, joint UD compression: "weight rank reduction"; the closed form is
// derived.) The best b removes the mean error, which leaves centred moments. With K = E[t x^T],
//   M = (K + lambda W0) (C + lambda I)^-1
// is the best of full rank, and what W costs beyond it is tr(G (W - M) (C + lambda I) (W - M)^T),
// which Eckart and Young's theorem minimises: for any F with F F^T = M (C + lambda I) M^T and
// F^T G F = V diag(e) V^T,
//   up = F V_r e_r^(-1/2),   down = up^T G M,   up^T G up = I.
// F = (K + lambda W0) L^-T needs the Cholesky factor L of C + lambda I alone; of a metric neither
// root nor inverse is taken. The eigenproblem is that of the smaller of out and in.
//
// Where t = V x and W0 = V this is the truncated SVD of V (C + lambda I)^(1/2), LatentLLM's
// root-covariance preconditioner.
//
// Takes up to in^3 / 6 + 2 out in^2 multiplications besides the eigenproblem, and holds two more
// [in, in] matrices and four [out, in] ones meanwhile. Immutable; safe for concurrent use.
class RankRegression {
 public:
  // InvalidArgument when there is no token, the damping is negative, or a tensor is absent, of
  // another shape or not fp64; Internal when one or a product is not finite. LibTorch's own
  // exceptions pass through.
  static absl::StatusOr<RankRegression> Solve(const RegressionMoments& moments,
                                              const RegressionOptions& options);

  // min(out, in).
  int64_t max_rank() const { return static_cast<int64_t>(spectrum_.size()); }

  // e: what each component takes off the damped objective, descending, never negative.
  const std::vector<double>& spectrum() const { return spectrum_; }

  // E|t - W x - b|_G^2 of a rank from 0 to max_rank(), without the damping: the true loss on the
  // calibration tokens, from 0 up.
  double Loss(int64_t rank) const;

  // W of a rank from 1 to max_rank(), OutOfRange otherwise. Components without any effect on the
  // calibration tokens are 0. `bias` is defined when the fit is centred.
  absl::StatusOr<LowRank> At(int64_t rank) const;

 private:
  RankRegression() = default;

  at::Tensor up_;           // [out, max_rank]
  at::Tensor down_;         // [max_rank, in]
  at::Tensor input_mean_;   // [in]; undefined when not centred
  at::Tensor target_mean_;  // [out]; undefined when not centred
  std::vector<double> spectrum_;
  std::vector<double> losses_;  // [max_rank + 1]
};

}  // namespace latentforge::low_rank
