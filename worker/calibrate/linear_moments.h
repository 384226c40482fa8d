// Sums the moments from which the linear maps of one decoder layer are compressed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/low_rank/linear.h"
#include "worker/low_rank/local_decomposition.h"

namespace latentforge::calibrate {

// Of one layer, over all calibration tokens; on the CPU.
struct LinearMoments {
  low_rank::InputMoments attention;  // of the input of q, k and v
  low_rank::InputMoments attended;   // of the input of o
  low_rank::InputMoments mlp;        // of the input of gate and up
  // Of the input of down, which is the widest: without its covariance, unless it was asked for.
  low_rank::WideMoments down;
  at::Tensor down_covariance;  // [F, F], E[x x^T]; undefined unless asked for
};

// Moments of rows x [n, width] as they come: products in fp32 for each block of rows, totals in
// fp64. Not safe for concurrent use. LibTorch's exceptions pass through.
class MomentSum {
 public:
  // `like` gives the device. Without `covariance` only the means are summed.
  MomentSum(int64_t width, bool covariance, const at::Tensor& like);

  // InvalidArgument when the width differs.
  absl::Status Add(const at::Tensor& x);

  // FailedPrecondition when no row was added; DataLoss when a moment is not finite.
  absl::StatusOr<low_rank::InputMoments> Finish() const;

 private:
  int64_t rows_ = 0;
  at::Tensor sum_;         // [width], fp64
  at::Tensor sum_abs_;     // [width], fp64
  at::Tensor covariance_;  // [width, width], fp64; undefined without
};

}  // namespace latentforge::calibrate
