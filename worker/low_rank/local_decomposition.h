// The truncated, preconditioned SVD of one linear map of any shape, at every rank at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/factorize/preconditioner.h"
#include "worker/low_rank/linear.h"

namespace latentforge::low_rank {

struct LocalOptions {
  factorize::Preconditioner preconditioner = factorize::Preconditioner::kRootCovariance;
  // diagonal-hessian with the exponent +1/2 that the slides print. It weighs quiet channels up; the
  // saliency of OBS, w^2 / [H^-1]_jj, asks for -1/2.
  bool literal_hessian = false;
  // Exponent of diagonal-l1.
  double alpha = 0.5;
  // delta of lambda = delta tr(C) / in, where P holds a lambda.
  double damping = 1e-3;
  // Weighs by C0 = C - mean mean^T in place of C. diagonal-l1 stays as it is: the moments do not
  // hold E|x_j - mean_j|.
  bool centred = false;
  // b + (W - W') mean in place of b; gives one to a map without. With `centred` and
  // root-covariance that is the least loss of any W' and any bias.
  bool update_bias = false;
};

// Moments of a map whose input is too wide for its covariance, as that of a down projection: the
// outputs' Gram says the same where out <= in. fp64.
struct WideMoments {
  at::Tensor mean;         // [in], E x
  at::Tensor mean_abs;     // [in], E |x_j|; only diagonal-l1 asks for it
  at::Tensor mean_square;  // [in], E x_j^2
  at::Tensor output_gram;  // [out, out], E[y y^T], y = W x before the bias
};

// LatentLLM, "Activation-Aware Rank Reduction": W' = svd_r[W P] P^+ for each P of its table.
//
// With U_r the leading left singular vectors of W P, svd_r[W P] = U_r U_r^T W P, so that
// W' = U_r U_r^T W: neither a root of C nor an inverse is formed (but for the Hessian's diagonal,
// which is one), and C may be singular. For root-covariance that is PCA of the outputs: U is the
// eigenbasis of E[y y^T] + lambda W W^T.
//
// A metric G = R R^T counts output errors as |R^T (y - y')|^2. Its solution is that of R^T W:
// W' = R^-T U_r U_r^T R^T W, U of R^T W P. Another root of G is R Q with Q orthogonal, turns U into
// Q^T U and leaves W' as it is.
//
// Where out > in, W = Q T by QR with T [in, in]: all outputs lie in the range of Q, and the
// problem is that of T under the metric Q^T G Q. No eigenproblem is wider than min(out, in).
//
// Immutable; safe for concurrent use.
class LocalDecomposition {
 public:
  // `metric` is G as ErrorMetric takes it: undefined, [out] or [out, out]. InvalidArgument for
  // wrong shapes, types and options and for a metric that is zero or indefinite; Internal where a
  // tensor or a result is not finite, or where diagonal-hessian meets a singular C + lambda I.
  // LibTorch's own exceptions pass through.
  static absl::StatusOr<LocalDecomposition> Compute(const Linear& linear,
                                                    const InputMoments& moments,
                                                    const LocalOptions& options,
                                                    const at::Tensor& metric = {});

  // The same from what is known of a wide input. InvalidArgument also where out > in and for the
  // preconditioners that ask for the covariance itself (covariance, diagonal-hessian).
  static absl::StatusOr<LocalDecomposition> Compute(const Linear& linear,
                                                    const WideMoments& moments,
                                                    const LocalOptions& options,
                                                    const at::Tensor& metric = {});

  // min(out, in).
  int64_t width() const { return static_cast<int64_t>(spectrum_.size()); }

  // Squared singular values of R^T W P, descending, never negative.
  const std::vector<double>& spectrum() const { return spectrum_; }

  // Their roots: S of the junctions.
  std::vector<double> SingularValues() const;

  // What each latent adds: E c_i^2 of the undamped calibration moments, never negative. Equal to
  // spectrum() for root-covariance without damping, where the moments are the same.
  const std::vector<double>& energies() const { return energies_; }

  // E|R^T (y - y')|^2 of the rank, biases included, on the undamped calibration moments: the sum of
  // the energies beyond it. Ranks are clamped to 0 .. width().
  double Loss(int64_t rank) const;

  // W' = up down of a rank from 1 to width(), OutOfRange otherwise; exact at width(). R^T up has
  // orthonormal columns (the right singular junction: up = U, down = S V P^+), the largest entry
  // of each column of `up` is positive.
  absl::StatusOr<LowRank> At(int64_t rank) const;

 private:
  LocalDecomposition() = default;

  struct Problem;
  static absl::StatusOr<LocalDecomposition> Solve(Problem problem, const LocalOptions& options);

  at::Tensor up_;           // [out, width]
  at::Tensor down_;         // [width, in]
  at::Tensor bias_;         // [out]; undefined when there is none
  at::Tensor output_mean_;  // [out], W mean; undefined when the bias stays
  at::Tensor latent_mean_;  // [width], down mean; undefined when the bias stays
  std::vector<double> spectrum_;
  std::vector<double> energies_;
};

}  // namespace latentforge::low_rank
