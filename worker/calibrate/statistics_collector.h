// Sums the moments of one layer's K and V inputs over calibration tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/factorize/preconditioner.h"
#include "worker/factorize/statistics.h"

namespace latentforge::calibrate {

// Products are taken in fp32 for each block of rows, totals in fp64. Not safe for
// concurrent use. LibTorch's exceptions pass through.
class StatisticsCollector {
 public:
  // `key` and `value` are the weights [m, D], any floating type, on the device of
  // the inputs.
  StatisticsCollector(const at::Tensor& key, const at::Tensor& value,
                      factorize::StatisticsNeeds needs);

  // Adds rows x [n, D]. InvalidArgument when the width differs.
  absl::Status Add(const at::Tensor& x);

  // The means, on the CPU. FailedPrecondition when no row was added; DataLoss when
  // a moment is not finite.
  absl::StatusOr<factorize::LayerStatistics> Finish() const;

 private:
  struct Output {
    at::Tensor weight;  // [D, m], fp32
    at::Tensor gram;    // [m, m], fp64
    at::Tensor cross;   // [m, D], fp64, when needed
  };

  void AddOutput(const at::Tensor& x, Output& output) const;

  factorize::StatisticsNeeds needs_;
  int64_t tokens_ = 0;
  at::Tensor sum_abs_;     // [D], fp64
  at::Tensor sum_square_;  // [D], fp64
  at::Tensor covariance_;  // [D, D], fp64, when needed
  Output key_;
  Output value_;
};

}  // namespace latentforge::calibrate
