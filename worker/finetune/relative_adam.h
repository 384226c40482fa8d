// AdamW whose steps are measured in units of each latent direction's own size.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/finetune/matrix_slot.h"

namespace latentforge::finetune {

struct AdamOptions {
  double beta1 = 0.9;
  double beta2 = 0.98;
  double relative_epsilon = 1e-3;
  double weight_decay = 0;
};

// One step in place, the `count`-th (from 1), along factor · gradient (fp32, on the CPU), with
// bias-corrected moments m and v:
//   master -= rate · scale · m / (sqrt(v) + eps · sqrt(mean v)) + rate · weight_decay · master
// (Loshchilov & Hutter 2019), the mean being over each latent alone. So neither the unit of the
// loss matters nor how a product up · down is divided between its two factors. A latent without
// any gradient so far keeps its values. LibTorch's exceptions pass through. Thread-safe on slots
// of their own.
void Step(MatrixSlot& slot, const at::Tensor& gradient, double factor, int64_t count, double rate,
          const AdamOptions& options);

}  // namespace latentforge::finetune
