#include "worker/evaluate/cross_entropy.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/tensor_rows.h"
#include "worker/model/torch_guard.h"

namespace latentforge::evaluate {

LogSumExp::LogSumExp(const at::Tensor& targets) : targets_(targets) {
  const at::TensorOptions options = at::TensorOptions(at::kFloat).device(targets.device());
  maximum_ = at::full({targets.size(0)}, -std::numeric_limits<float>::infinity(), options);
  sum_ = at::zeros({targets.size(0)}, options);
  target_logit_ = at::zeros({targets.size(0)}, options);
}

void LogSumExp::Add(const at::Tensor& logits, int64_t row, int64_t column) {
  const int64_t count = logits.size(0);
  const at::Tensor maximum = maximum_.narrow(0, row, count);
  const at::Tensor sum = sum_.narrow(0, row, count);
  const at::Tensor target_logit = target_logit_.narrow(0, row, count);
  const at::Tensor local = targets_.narrow(0, row, count) - column;
  const at::Tensor here = local.ge(0).logical_and(local.lt(logits.size(1)));
  const at::Tensor index = local.clamp(0, logits.size(1) - 1).unsqueeze(1);
  const at::Tensor found = logits.gather(1, index).squeeze(1).to(at::kFloat);
  target_logit.copy_(at::where(here, found, target_logit));
  if (model::HasRowKernels(logits)) {
    model::WithElementType(logits, [&]<typename T>(T) {
      model::LogSumExpRows<T>(model::RowsOf<const T>(logits), model::Elements<float>(maximum),
                              model::Elements<float>(sum));
    });
    return;
  }
  const at::Tensor wide = logits.to(at::kFloat);
  const at::Tensor raised = at::maximum(maximum, wide.amax(1));
  const at::Tensor added = (wide - raised.unsqueeze(1)).exp_().sum(1);
  sum.mul_((maximum - raised).exp_()).add_(added);
  maximum.copy_(raised);
}

at::Tensor LogSumExp::Nll() const { return maximum_ + sum_.log() - target_logit_; }

absl::StatusOr<at::Tensor> TargetNll(const at::Tensor& x, const at::Tensor& targets,
                                     const HeadRows& head, const CrossEntropyOptions& options) {
  return model::CatchTorch(
      [&]() -> absl::StatusOr<at::Tensor> {
        LogSumExp state(targets);
        const int64_t rows = x.size(0);
        const int64_t block_rows = std::min(options.block_rows, rows);
        const int64_t block_columns = std::min(options.block_vocabulary, options.vocabulary);
        at::Tensor buffer = at::empty({block_rows * block_columns}, x.options());
        for (int64_t column = 0; column < options.vocabulary; column += block_columns) {
          if (options.stop && options.stop()) return absl::CancelledError("evaluation stopped");
          const int64_t width = std::min(block_columns, options.vocabulary - column);
          LF_ASSIGN_OR_RETURN(const at::Tensor weight, head(column, column + width));
          for (int64_t row = 0; row < rows; row += block_rows) {
            const int64_t count = std::min(block_rows, rows - row);
            at::Tensor logits = buffer.narrow(0, 0, count * width).view({count, width});
            at::mm_out(logits, x.narrow(0, row, count), weight.t());
            state.Add(logits, row, column);
          }
        }
        return state.Nll();
      },
      "logits");
}

}  // namespace latentforge::evaluate
