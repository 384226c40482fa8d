// Slow, independent fp64 references for the joint compressions of a layer's attention: tokens,
// heads and lags one by one, every D x D matrix formed.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "worker/low_rank/linear.h"

namespace latentforge::low_rank {

inline at::Tensor RandomMatrix(int64_t rows, int64_t columns, uint64_t seed) {
  return at::randn({rows, columns}, at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble);
}

inline double MaxAbs(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }
inline double SquaredNorm(const at::Tensor& tensor) { return tensor.square().sum().item<double>(); }

// 10^(-2 j / (d/2)): fast, middling and slow pairs.
inline at::Tensor Frequencies(int64_t head_dim) {
  return at::pow(10.0, -4 * at::arange(head_dim / 2, at::kDouble) / double(head_dim));
}

// R_Delta of the half-split layout, [d, d].
inline at::Tensor Rotation(const at::Tensor& frequencies, int64_t delta) {
  const at::Tensor angle = frequencies * double(delta);
  const at::Tensor cosine = at::diag(at::cos(angle));
  const at::Tensor sine = at::diag(at::sin(angle));
  return at::cat({at::cat({cosine, -sine}, 1), at::cat({sine, cosine}, 1)}, 0);
}

inline at::Tensor CausalLagWeights(int64_t length) {
  return at::arange(length, 0, -1, at::kDouble) / double(length * (length + 1) / 2);
}

inline at::Tensor SymmetricRoot(const at::Tensor& matrix) {
  const auto [values, vectors] = at::linalg_eigh(matrix);
  return at::matmul(vectors * values.clamp_min(0).sqrt(), vectors.t());
}

// The leading eigenvectors of a symmetric matrix, as orthonormal rows.
inline at::Tensor LeadingRows(const at::Tensor& symmetric, int64_t rank) {
  const auto [values, vectors] = at::linalg_eigh(symmetric);
  return vectors.flip({1}).narrow(1, 0, rank).t();
}

// Inputs x [D, n] with a few loud directions and a mean.
inline at::Tensor ToyInputs(int64_t d, int64_t n, uint64_t seed) {
  at::set_num_threads(1);  // products are tiny, and waking threads costs more
  const at::Tensor mix = RandomMatrix(d, d, seed) * at::logspace(0.5, -1, d, 10, at::kDouble);
  return at::matmul(mix, RandomMatrix(d, n, seed + 1)) + 0.7 * RandomMatrix(d, 1, seed + 2);
}

inline InputMoments MomentsOf(const at::Tensor& x) {
  return {.tokens = x.size(1),
          .mean = x.mean(1),
          .mean_abs = {},
          .covariance = at::matmul(x, x.t()) / double(x.size(1))};
}

// W x + b over tokens as columns.
inline at::Tensor Apply(const Linear& linear, const at::Tensor& x) {
  const at::Tensor y = at::matmul(linear.weight, x);
  return linear.bias.defined() ? y + linear.bias.unsqueeze(1) : y;
}

inline Linear AsLinear(const LowRank& factors) {
  return {.weight = at::matmul(factors.up, factors.down), .bias = factors.bias};
}

// Rows of head `head`, of `width` rows each.
inline at::Tensor Head(const at::Tensor& stacked, int64_t head, int64_t width) {
  return stacked.narrow(0, head * width, width);
}

}  // namespace latentforge::low_rank
