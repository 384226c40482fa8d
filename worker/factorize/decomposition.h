// The truncated, preconditioned SVD of one projection at every rank at once.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "worker/factorize/preconditioner.h"
#include "worker/factorize/statistics.h"

namespace latentforge::factorize {

// W ~ up * down.
struct Factors {
  at::Tensor down;  // [r, D]
  at::Tensor up;    // [m, r]
};

// How the free scale between down and up is fixed; the product is the same.
enum class Gauge {
  kOrthonormal,  // up has orthonormal columns
  kUnitRms,      // each latent has unit root mean square over the calibration tokens, so that
                 // low-precision storage rounds all of them alike
};

// Holds the eigenbasis U of W P P^T W^T: svd_r(W P) P^+ = U_r U_r^T W, so that
// up = U_r and down = U_r^T W. Immutable; safe for concurrent use.
class Decomposition {
 public:
  // `weight` is [m, D] fp64. Errors as in MetricGram; Internal when the Gram of
  // outputs is not finite. LibTorch's own exceptions pass through.
  static absl::StatusOr<Decomposition> Compute(const at::Tensor& weight,
                                               const InputStatistics& input,
                                               const OutputStatistics& output,
                                               const PreconditionerOptions& options);

  // m.
  int64_t width() const { return static_cast<int64_t>(spectrum_.size()); }

  // Squared singular values of W P, descending, never negative.
  const std::vector<double>& spectrum() const { return spectrum_; }

  // (E||(W - W_r) x||^2 / E||W x||^2)^(1/2) on the undamped calibration moments,
  // for a rank from 0 to m; 0 where the outputs are all zero.
  double RelativeError(int64_t rank) const;

  // Factors of a rank from 1 to m; OutOfRange otherwise.
  absl::StatusOr<Factors> FactorsOf(int64_t rank, Gauge gauge) const;

 private:
  Decomposition() = default;

  at::Tensor weight_;             // [m, D]
  at::Tensor basis_;              // [m, m], columns by descending eigenvalue
  std::vector<double> spectrum_;  // [m]
  std::vector<double> energy_;    // [m], E (u_i^T y)^2, undamped
};

// Eigenvalues of E[y y^T], descending and clipped at 0: the squared singular
// values of W C^(1/2). Internal when the matrix is not finite.
absl::StatusOr<std::vector<double>> OutputSpectrum(const at::Tensor& gram);

}  // namespace latentforge::factorize
