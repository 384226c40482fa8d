// Sums the moments of one layer's K and V outputs and of the loss's gradients by
// them over calibration tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/factorize/loss_statistics.h"

namespace latentforge::calibrate {

// Products are taken in fp32 for each block of rows, totals in fp64. Not safe for
// concurrent use. LibTorch's exceptions pass through.
class LossMoments {
 public:
  // `weight` [2m, D] holds the rows of W_K, then of W_V, in full precision.
  explicit LossMoments(const at::Tensor& weight);

  // Rows are sequences of `length` tokens: x [rows, D] the input of the projections,
  // gradient [rows, 2m] of the loss by the outputs of K, then of V.
  void Add(const at::Tensor& x, const at::Tensor& gradient, int64_t length);

  // The means, on the CPU. FailedPrecondition when no row was added; DataLoss when
  // a moment is not finite.
  absl::StatusOr<factorize::LossStatistics> Finish() const;

 private:
  at::Tensor weight_;  // [D, 2m] fp32
  int64_t tokens_ = 0;
  int64_t sequences_ = 0;
  at::Tensor output_, output_first_, fisher_, fisher_first_;  // [2m, 2m] fp64
};

}  // namespace latentforge::calibrate
