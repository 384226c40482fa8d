// Slow, independent fp64 references for the factorisation tests: every P is
// formed as a matrix and the truncated SVD is taken as the definition says.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "worker/factorize/preconditioner.h"
#include "worker/factorize/statistics.h"

namespace latentforge::factorize {

inline at::Tensor RandomMatrix(int64_t rows, int64_t columns, uint64_t seed) {
  return at::randn({rows, columns}, at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble);
}

// A projection with the moments of `x` ([D, n], tokens as columns).
struct Problem {
  at::Tensor weight;
  at::Tensor x;
  at::Tensor covariance;
  InputStatistics input;
  OutputStatistics output;
};

inline Problem MakeProblem(const at::Tensor& weight, const at::Tensor& x) {
  Problem p;
  p.weight = weight;
  p.x = x;
  const double n = double(x.size(1));
  p.covariance = at::matmul(x, x.t()) / n;
  p.input = {.tokens = x.size(1),
             .mean_abs = x.abs().mean(1),
             .mean_square = x.pow(2).mean(1),
             .covariance = p.covariance};
  const at::Tensor y = at::matmul(weight, x);
  p.output = {.gram = at::matmul(y, y.t()) / n, .cross = at::matmul(y, x.t()) / n};
  return p;
}

// Inputs with a few loud directions and channels, as in real models.
inline Problem RandomProblem(int64_t m, int64_t d, int64_t n, uint64_t seed) {
  const at::Tensor mix = RandomMatrix(d, d, seed) * at::logspace(0.5, -1.5, d, 10, at::kDouble);
  return MakeProblem(RandomMatrix(m, d, seed + 1), at::matmul(mix, RandomMatrix(d, n, seed + 2)));
}

inline at::Tensor SymmetricRoot(const at::Tensor& matrix) {
  const auto [values, vectors] = at::linalg_eigh(matrix);
  return at::matmul(vectors * values.clamp_min(0).sqrt(), vectors.t());
}

inline double Lambda(const Problem& p, double damping) {
  return damping * p.covariance.trace().item<double>() / double(p.covariance.size(0));
}

inline at::Tensor DampedCovariance(const Problem& p, double damping) {
  return p.covariance + Lambda(p, damping) * at::eye(p.covariance.size(0), at::kDouble);
}

// The matrix P itself.
inline at::Tensor PreconditionerMatrix(const Problem& p, const PreconditionerOptions& options) {
  const at::Tensor damped = DampedCovariance(p, options.damping);
  switch (options.kind) {
    case Preconditioner::kIdentity:
      return at::eye(p.covariance.size(0), at::kDouble);
    case Preconditioner::kDiagonalL1:
      return at::diag(p.x.abs().mean(1).pow(options.alpha));
    case Preconditioner::kDiagonalL2:
      return at::diag(p.covariance.diagonal().sqrt());
    case Preconditioner::kDiagonalHessian:
      return at::diag(at::linalg_inv(damped).diagonal().pow(-0.5));
    case Preconditioner::kCovariance:
      return damped;
    case Preconditioner::kRootCovariance:
      return SymmetricRoot(damped);
  }
  return {};
}

// svd_r(W P) P^+.
inline at::Tensor TruncatedByDefinition(const at::Tensor& weight, const at::Tensor& p,
                                        int64_t rank) {
  const auto [u, s, v] = at::linalg_svd(at::matmul(weight, p), /*full_matrices=*/false);
  const at::Tensor low =
      at::matmul(u.narrow(1, 0, rank) * s.narrow(0, 0, rank), v.narrow(0, 0, rank));
  return at::matmul(low, at::linalg_pinv(p, 1e-12));
}

// tr((W - W') C (W - W')^T) from the tokens themselves.
inline double Loss(const Problem& p, const at::Tensor& approximation) {
  return at::matmul(p.weight - approximation, p.x).pow(2).sum().item<double>() /
         double(p.x.size(1));
}

inline double MaxAbs(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }

}  // namespace latentforge::factorize
