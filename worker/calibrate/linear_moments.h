// Sums the moments from which the linear maps of one decoder layer are compressed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/model_config.h"
#include "worker/low_rank/linear.h"
#include "worker/low_rank/local_decomposition.h"
#include "worker/model/decoder.h"

namespace latentforge::calibrate {

// Of one layer, over all calibration tokens; on the CPU.
struct LinearMoments {
  low_rank::InputMoments attention;  // of the input of q, k and v
  low_rank::InputMoments attended;   // of the input of o
  low_rank::InputMoments mlp;        // of the input of gate and up
  // Of the input of down, which is the widest: without its covariance, unless it was asked for.
  low_rank::WideMoments down;
  at::Tensor down_covariance;  // [F, F], E[x x^T]; undefined unless asked for
  at::Tensor attention_rows;   // [n, D] fp64, a sample of the input of q, k and v; undefined
                               // unless asked for
};

// Moments of rows x [n, width] as they come: products in fp32 for each block of rows, totals in
// fp64. Not safe for concurrent use. LibTorch's exceptions pass through.
class MomentSum {
 public:
  // Without `covariance` only the means are summed.
  MomentSum(int64_t width, bool covariance, at::Device device);

  // InvalidArgument when the width differs.
  absl::Status Add(const at::Tensor& x);

  // FailedPrecondition when no row was added; DataLoss when a moment is not finite.
  absl::StatusOr<low_rank::InputMoments> Finish() const;

  // E x_j^2, [width]. Errors as Finish.
  absl::StatusOr<at::Tensor> MeanSquare() const;

 private:
  absl::StatusOr<at::Tensor> Mean(const at::Tensor& sum) const;

  int64_t rows_ = 0;
  at::Tensor sum_;         // [width], fp64
  at::Tensor sum_abs_;     // [width], fp64
  at::Tensor sum_square_;  // [width], fp64
  at::Tensor covariance_;  // [width, width], fp64; undefined without
};

struct LinearMomentsNeeds {
  bool down_covariance = false;
  // Rows of the input of q, k and v that are kept as they are, the first of each batch: for the
  // norms of QK-norm. 0: none.
  int64_t attention_rows = 0;
};

// Sums LinearMoments of one layer. Not safe for concurrent use. LibTorch's exceptions pass through.
class LinearMomentsCollector {
 public:
  // `down_bias` [D] is what kMlpOutput holds beyond down's product; undefined: nothing.
  LinearMomentsCollector(const checkpoint::ModelConfig& config, const LinearMomentsNeeds& needs,
                         const at::Tensor& down_bias, at::Device device);

  // Rows of any point, as model::LayerObserver gives them. InvalidArgument when the width differs.
  absl::Status Add(model::LayerPoint point, const at::Tensor& rows);

  // Errors as MomentSum::Finish, for any point.
  absl::StatusOr<LinearMoments> Finish() const;

 private:
  LinearMomentsNeeds needs_;
  at::Tensor down_bias_;  // fp32
  MomentSum attention_, attended_, mlp_, activated_, mlp_output_;
  std::vector<at::Tensor> kept_;
  int64_t kept_rows_ = 0;
};

}  // namespace latentforge::calibrate
