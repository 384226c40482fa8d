#include "worker/factorize/eigenbasis.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace latentforge::factorize {
namespace {

// Latents quieter than this share of the loudest are not scaled up further.
constexpr double kQuietestLatent = 1e-6;

// Eigenvectors are free in sign; makes the largest entry of each column positive.
at::Tensor FixSigns(const at::Tensor& basis) {
  const at::Tensor index = basis.abs().argmax(0, /*keepdim=*/true);
  const at::Tensor signs = basis.gather(0, index).sign();
  return basis * at::where(signs == 0, at::ones_like(signs), signs);
}

std::vector<double> Descending(const at::Tensor& values) {
  return ToVector(values.flip({0}).clamp_min(0));
}

}  // namespace

Eigenbasis DescendingEigenbasis(const at::Tensor& symmetric) {
  const auto [values, vectors] = at::linalg_eigh(symmetric);
  return {.values = Descending(values), .vectors = FixSigns(vectors.flip({1}))};
}

std::vector<double> DescendingEigenvalues(const at::Tensor& symmetric) {
  return Descending(at::linalg_eigvalsh(symmetric));
}

std::vector<double> ToVector(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU).contiguous();
  const double* data = host.const_data_ptr<double>();
  return std::vector<double>(data, data + host.numel());
}

at::Tensor LatentScales(const std::vector<double>& energy, int64_t rank, const at::Tensor& like) {
  double loudest = 0;
  for (int64_t i = 0; i < rank; ++i) loudest = std::max(loudest, std::sqrt(energy[i]));
  std::vector<double> scales(rank, 1.0);
  for (int64_t i = 0; i < rank && loudest > 0; ++i) {
    scales[i] = std::max(std::sqrt(energy[i]), kQuietestLatent * loudest);
  }
  return at::tensor(scales, like.options());
}

}  // namespace latentforge::factorize
