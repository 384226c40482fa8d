// Slow, independent fp64 references for the joint compressions of a layer's attention: tokens,
// heads and lags one by one, every D x D matrix formed.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

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

}  // namespace latentforge::low_rank
