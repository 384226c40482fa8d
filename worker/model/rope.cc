#include "worker/model/rope.h"

#include <ATen/ATen.h>

#include <numbers>

#include "worker/model/tensor_rows.h"

namespace latentforge::model {
namespace {

using checkpoint::RopeScaling;

// Long wavelengths are divided by `factor`, short ones kept, those between the two
// limits interpolated. Written with tensors so that each step rounds as in
// transformers.
at::Tensor ScaleLlama3(const at::Tensor& frequencies, const RopeScaling& scaling) {
  const auto context = static_cast<double>(scaling.original_max_position_embeddings);
  const double low_wavelength = context / scaling.low_freq_factor;
  const double high_wavelength = context / scaling.high_freq_factor;
  const at::Tensor wavelength = 2 * std::numbers::pi / frequencies;
  const at::Tensor scaled =
      at::where(wavelength > low_wavelength, frequencies / scaling.factor, frequencies);
  const at::Tensor smooth = (context / wavelength - scaling.low_freq_factor) /
                            (scaling.high_freq_factor - scaling.low_freq_factor);
  const at::Tensor smoothed = (1 - smooth) * scaled / scaling.factor + smooth * scaled;
  const at::Tensor between =
      wavelength.ge(high_wavelength).logical_and(wavelength.le(low_wavelength));
  return at::where(between, smoothed, scaled);
}

}  // namespace

at::Tensor InverseFrequencies(const checkpoint::ModelConfig& config) {
  const at::Tensor exponents =
      at::arange(0, config.head_dim, 2, at::kFloat) / static_cast<double>(config.head_dim);
  const at::Tensor frequencies = 1.0 / at::pow(at::Scalar(config.rope_theta), exponents);
  if (config.rope_scaling.kind == RopeScaling::Kind::kLlama3) {
    return ScaleLlama3(frequencies, config.rope_scaling);
  }
  return frequencies;
}

RopeTable MakeRopeTable(const checkpoint::ModelConfig& config, int64_t length, at::Device device,
                        at::ScalarType dtype) {
  const at::Tensor positions = at::arange(0, length, at::kFloat);
  const at::Tensor angles = positions.unsqueeze(1) * InverseFrequencies(config).unsqueeze(0);
  return {angles.cos().to(device, dtype), angles.sin().to(device, dtype)};
}

void ApplyRope(const at::Tensor& x, int64_t length, const RopeTable& table) {
  const int64_t half = table.cos.size(1);
  if (HasRowKernels(x)) {
    WithElementType(x, [&]<typename T>(T) {
      RopeRows<T>(RowsOf<T>(x), Elements<const T>(table.cos), Elements<const T>(table.sin), length,
                  half);
    });
    return;
  }
  const at::Tensor cos = table.cos.narrow(0, 0, length).unsqueeze(1);  // [T, 1, half]
  const at::Tensor sin = table.sin.narrow(0, 0, length).unsqueeze(1);
  const at::Tensor heads = x.unflatten(0, {-1, length}).unflatten(2, {-1, 2 * half});
  const at::Tensor a = heads.narrow(3, 0, half);
  const at::Tensor b = heads.narrow(3, half, half);
  const at::Tensor rotated_a = a * cos - b * sin;
  b.copy_(b * cos + a * sin);
  a.copy_(rotated_a);
}

}  // namespace latentforge::model
