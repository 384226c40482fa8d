// Sums the moments of one layer's projection inputs in the original and in the converted
// model over calibration tokens.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/factorize/anchored_weight.h"

namespace latentforge::calibrate {

// Products are taken in fp32 for each block of rows, totals in fp64. Not safe for concurrent
// use. LibTorch's exceptions pass through.
class AnchorSums {
 public:
  // For rows of `width` values on `device`.
  AnchorSums(int64_t width, at::Device device);

  // Rows are sequences of `length` tokens: the same tokens' inputs [rows, D] in both models, of
  // any floating type.
  void Add(const at::Tensor& original, const at::Tensor& converted, int64_t length);

  // The means, on the CPU, whatever they are; they take the place of the sums, which are as
  // large. FailedPrecondition when no row was added.
  absl::StatusOr<factorize::AnchorMoments> Finish() &&;

 private:
  int64_t tokens_ = 0;
  int64_t sequences_ = 0;
  at::Tensor converted_, converted_first_, cross_, cross_first_;  // [D, D] fp64
};

}  // namespace latentforge::calibrate
