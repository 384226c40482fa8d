// How far a model's predictions are from those of the one that it should follow.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"

namespace latentforge::finetune {

struct DistillationOptions {
  // Logits of each model in memory at a time; whole rows, at least one.
  int64_t block_elements = int64_t{1} << 24;
  bool gradient = true;
  // Asked once a block; true ends with Cancelled.
  std::function<bool()> stop;
};

struct DistillationLoss {
  double divergence = 0;  // mean over rows of KL(teacher || student), nats
  double nll = 0;         // mean over labelled rows of the student's -log p(label), nats
  at::Tensor gradient;    // [rows, D], of the mean divergence by the student's states
};

// teacher and student: [rows, D], last states after the final norm, of one type. head:
// [vocabulary, D], the output head of both. labels: [rows] int64 on the CPU, -1 for none.
// DataLoss when the divergence is not finite, ResourceExhausted, Cancelled.
absl::StatusOr<DistillationLoss> Distill(const at::Tensor& teacher, const at::Tensor& student,
                                         const at::Tensor& head, const at::Tensor& labels,
                                         const DistillationOptions& options);

}  // namespace latentforge::finetune
