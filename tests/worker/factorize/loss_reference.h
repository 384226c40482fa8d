// Slow, independent fp64 references for the loss-aware factorisation: everything is
// computed from tokens and gradients, roots are symmetric ones, the minimum an SVD.
#pragma once

#include <ATen/ATen.h>

#include "tests/worker/factorize/reference.h"
#include "worker/factorize/loss_decomposition.h"

namespace latentforge::factorize {

// Tokens and gradients of one layer, as columns; position 0 of each sequence comes first.
struct LossProblem {
  int64_t m = 0;
  at::Tensor weight;      // [2m, D]
  at::Tensor covariance;  // [D, D], all positions
  at::Tensor first;       // [D, D], position 0
  at::Tensor x;           // [D, tokens]
  LossStatistics statistics;
};

inline at::Tensor SecondMoment(const at::Tensor& columns) {
  return at::matmul(columns, columns.t()) / double(columns.size(1));
}

inline LossProblem MakeLossProblem(const at::Tensor& weight, const at::Tensor& x,
                                   const at::Tensor& g, int64_t sequences) {
  const at::Tensor x0 = x.narrow(1, 0, sequences);
  return {.m = weight.size(0) / 2,
          .weight = weight,
          .covariance = SecondMoment(x),
          .first = SecondMoment(x0),
          .x = x,
          .statistics = {.tokens = x.size(1),
                         .sequences = sequences,
                         .output = SecondMoment(at::matmul(weight, x)),
                         .output_first = SecondMoment(at::matmul(weight, x0)),
                         .fisher = SecondMoment(g),
                         .fisher_first = SecondMoment(g.narrow(1, 0, sequences))}};
}

// Keys and values of different scale, correlated gradients, a loud position 0.
inline LossProblem RandomLossProblem(int64_t m, int64_t d, uint64_t seed) {
  const int64_t tokens = 400;
  const int64_t sequences = 20;
  const at::Tensor mix = RandomMatrix(d, d, seed) * at::logspace(0.5, -1, d, 10, at::kDouble);
  at::Tensor x = at::matmul(mix, RandomMatrix(d, tokens, seed + 1));
  x.narrow(1, 0, sequences).mul_(3).add_(2);
  at::Tensor weight = RandomMatrix(2 * m, d, seed + 2);
  weight.narrow(0, 0, m).mul_(2);
  const at::Tensor spread =
      RandomMatrix(2 * m, 2 * m, seed + 3) * at::logspace(-1, -2.5, 2 * m, 10, at::kDouble);
  at::Tensor g = at::matmul(spread, RandomMatrix(2 * m, tokens, seed + 4));
  g.narrow(0, m, m).mul_(5);
  return MakeLossProblem(weight, x, g, sequences);
}

inline int64_t StartOf(const LossProblem& p, LatentPart part) {
  return part == LatentPart::kValue ? p.m : 0;
}
inline int64_t WidthOf(const LossProblem& p, LatentPart part) {
  return part == LatentPart::kJoint ? 2 * p.m : p.m;
}
inline at::Tensor RowsOf(const LossProblem& p, LatentPart part) {
  return p.weight.narrow(0, StartOf(p, part), WidthOf(p, part));
}

// G with its ridge, as method and header state it.
inline at::Tensor RidgedFisher(const LossProblem& p, LatentPart part, double ridge) {
  const int64_t start = StartOf(p, part);
  const int64_t width = WidthOf(p, part);
  at::Tensor g =
      p.statistics.fisher.slice(0, start, start + width).slice(1, start, start + width).clone();
  for (int64_t first = 0; first < width; first += p.m) {
    double trace = 0;
    for (int64_t i = first; i < first + p.m; ++i) trace += g[i][i].item<double>();
    for (int64_t i = first; i < first + p.m; ++i) g[i][i] += ridge * trace / double(p.m);
  }
  return g;
}

inline at::Tensor MixedCovariance(const LossProblem& p, double sink_weight) {
  return (1 - sink_weight) * p.covariance + sink_weight * p.first;
}

// 1/2 tr(G (W - W') C (W - W')^T).
inline double ExpectedLoss(const at::Tensor& fisher, const at::Tensor& covariance,
                           const at::Tensor& difference) {
  return 0.5 * at::matmul(at::matmul(fisher, difference), covariance)
                   .mul(difference)
                   .sum()
                   .item<double>();
}

// The W' of rank r of least loss, which is half the squared Frobenius norm of
// G^(1/2) (W - W') C^(1/2): Eckart and Young's theorem minimises it.
inline at::Tensor BestOfRank(const at::Tensor& weight, const at::Tensor& fisher,
                             const at::Tensor& covariance, int64_t rank) {
  const at::Tensor left = SymmetricRoot(fisher);
  const at::Tensor right = SymmetricRoot(covariance);
  const auto [u, s, v] =
      at::linalg_svd(at::matmul(at::matmul(left, weight), right), /*full_matrices=*/false);
  const at::Tensor low =
      at::matmul(u.narrow(1, 0, rank) * s.narrow(0, 0, rank), v.narrow(0, 0, rank));
  return at::matmul(at::matmul(at::linalg_inv(left), low), at::linalg_inv(right));
}

}  // namespace latentforge::factorize
