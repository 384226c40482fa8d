// The matrices P by which a projection W is weighted before its truncated SVD,
// each reduced to the m x m matrix W P P^T W^T whose eigenvectors solve it.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/factorize/statistics.h"

namespace latentforge::factorize {

enum class Preconditioner {
  kIdentity,         // P = I: plain SVD
  kDiagonalL1,       // P = diag(E|x_j|)^alpha: ASVD
  kDiagonalL2,       // P = diag(E x_j^2)^(1/2): Wanda
  kDiagonalHessian,  // P_jj = [(C + lambda I)^-1]_jj^(-1/2): OBS, GPTQ
  kCovariance,       // P = C + lambda I: CorDA
  kRootCovariance,   // P = (C + lambda I)^(1/2): SVD-LLM, CARE, LatentLLM
};

// "root-covariance" and so on, as on the command line.
absl::string_view PreconditionerName(Preconditioner preconditioner);
std::optional<Preconditioner> PreconditionerFromName(absl::string_view name);

// The statistics beyond diagonals and Grams that a preconditioner asks for.
struct StatisticsNeeds {
  bool cross = false;
  bool covariance = false;
};
StatisticsNeeds NeedsOf(Preconditioner preconditioner);

struct PreconditionerOptions {
  Preconditioner kind = Preconditioner::kRootCovariance;
  // delta: lambda = delta * E||x||^2 / D. Ignored where P holds no lambda.
  double damping = 0;
  // Exponent of kDiagonalL1.
  double alpha = 0.5;
};

// diag[(C + lambda I)^-1], [D] fp64. Internal when the sum is not positive definite. LibTorch's own
// exceptions pass through.
absl::StatusOr<at::Tensor> InverseDiagonal(const at::Tensor& covariance, double lambda);

// W P P^T W^T, [m, m] fp64, on the device of `weight` ([m, D] fp64). No root and
// no inverse of C is formed, except for the Hessian's diagonal. InvalidArgument
// when the options are out of range, the statistics are absent or their shapes
// disagree with W; Internal when the result is not finite or C + lambda I is
// singular (Hessian). LibTorch's own exceptions pass through.
absl::StatusOr<at::Tensor> MetricGram(const at::Tensor& weight, const InputStatistics& input,
                                      const OutputStatistics& output,
                                      const PreconditionerOptions& options);

}  // namespace latentforge::factorize
