// The gradient of a language model's loss by its last hidden states, without ever
// holding all logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"

namespace latentforge::calibrate {

// Rows [begin, end) of the output head, [end - begin, D].
using HeadRows = std::function<absl::StatusOr<at::Tensor>(int64_t begin, int64_t end)>;

struct LabelGradientOptions {
  int64_t vocabulary = 0;
  // Of the head in memory at a time.
  int64_t block_vocabulary = 1024;
  // Of logits in memory at a time, or those of one row: as many rows are taken together.
  int64_t logit_bytes = int64_t{32} << 20;
  // Asked once a block of the vocabulary; true ends with Cancelled.
  std::function<bool()> stop;
};

struct LabelGradient {
  at::Tensor gradient;  // [rows, D], of x's type: (softmax(logits) - onehot(label)) · head
  at::Tensor labels;    // [rows] int64, on the CPU
};

// Labels drawn from the model's own softmax of x [rows, D] (after the final norm):
// the true Fisher information. `uniforms` [rows] fp64 in [0, 1) on the CPU chooses
// them by the inverse of the cumulative distribution. The loss is the sum over rows
// of -log softmax(logits)[label]. Errors: those of `head`, Cancelled, DataLoss when
// a logit is not finite, ResourceExhausted.
absl::StatusOr<LabelGradient> SampledLabelGradient(const at::Tensor& x, const at::Tensor& uniforms,
                                                   const HeadRows& head,
                                                   const LabelGradientOptions& options);

// The same for given labels [rows] int64 on the CPU, -1 for a row without one (its
// gradient is 0): the empirical Fisher information.
absl::StatusOr<LabelGradient> TextLabelGradient(const at::Tensor& x, const at::Tensor& labels,
                                                const HeadRows& head,
                                                const LabelGradientOptions& options);

}  // namespace latentforge::calibrate
