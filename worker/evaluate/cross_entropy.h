// Negative log likelihood of targets without ever holding all logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace latentforge::evaluate {

// Rows [begin, end) of the output head, [end - begin, D].
using HeadRows = std::function<absl::StatusOr<at::Tensor>(int64_t begin, int64_t end)>;

struct CrossEntropyOptions {
  int64_t vocabulary = 0;
  // Logits in memory at a time: block_rows * block_vocabulary.
  int64_t block_rows = 1024;
  int64_t block_vocabulary = 4096;
  // Asked once a block of the vocabulary; true ends with Cancelled.
  std::function<bool()> stop;
};

// Collects log(sum(exp(logits))) of each row over blocks of the vocabulary, in fp32
// with a running maximum, and the target's logit. Not safe for concurrent use.
class LogSumExp {
 public:
  // targets: [rows] int64, on the device of the logits.
  explicit LogSumExp(const at::Tensor& targets);

  // Takes logits [n, width] of rows [row, row + n) and vocabulary entries
  // [column, column + width). Overwrites nothing.
  void Add(const at::Tensor& logits, int64_t row, int64_t column);

  // NLL of each row's target, [rows] fp32: log-sum-exp minus the target's logit.
  at::Tensor Nll() const;

 private:
  at::Tensor targets_;
  at::Tensor maximum_;  // [rows]
  at::Tensor sum_;      // [rows], of exp(logit - maximum)
  at::Tensor target_logit_;
};

// NLL [rows] fp32 of `targets` [rows] int64 under logits x · headᵀ, x [rows, D].
// The logits are rounded to x's type, as a model's output is. Errors: those of
// `head`, Cancelled, ResourceExhausted.
absl::StatusOr<at::Tensor> TargetNll(const at::Tensor& x, const at::Tensor& targets,
                                     const HeadRows& head, const CrossEntropyOptions& options);

}  // namespace latentforge::evaluate
