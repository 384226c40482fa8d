// Muon (Jordan et al. 2024: momentum whose singular values are made equal) with steps in units of
// each latent direction's own size.
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/finetune/matrix_slot.h"

namespace latentforge::finetune {

struct MuonOptions {
  double momentum = 0.95;
  // Root mean square of a step's elements at rate 1, in units of their latents' sizes.
  double step_size = 0.5;
  double weight_decay = 0;
};

// x with its singular values made about equal, between 0.68 and 1.14 for those above a thousandth
// of x's Frobenius norm: five steps of the Newton-Schulz iteration
//   x <- a x + (b x x^T + c (x x^T)^2) x,  (a, b, c) = (3.4445, -4.7750, 2.0315),
// from x / |x|_F. Zero for zero. LibTorch's exceptions pass through.
at::Tensor Orthogonalized(const at::Tensor& x);

// One step in place along factor · gradient (fp32, on the CPU). With the running mean m of
// gradients, looked at one step ahead (Nesterov), and D(s) the latents' sizes,
//   master -= rate · step_size · sqrt(larger dimension) · D(s) Orthogonalized(D(s) m)
//             + rate · weight_decay · master,
// in each block of the matrix alone. So the unit of the loss does not matter. Latents without any
// gradient keep their values but for the decay. LibTorch's exceptions pass through. Thread-safe on
// slots of their own.
void Step(MatrixSlot& slot, const at::Tensor& gradient, double factor, double rate,
          const MuonOptions& options);

}  // namespace latentforge::finetune
