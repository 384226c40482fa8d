// A matrix that healing trains, with what an optimizer remembers of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace latentforge::finetune {

// Which dimension of a matrix counts the latents: a down-projection has one in each row, an
// up-projection one in each column.
enum class LatentAxis { kRows, kColumns };

enum class Optimizer { kMuon, kAdamW };

// What is trained and how: steps are measured in units of each latent's own size, so that it does
// not matter how a product up · down is divided between its two factors.
struct MatrixKind {
  LatentAxis axis = LatentAxis::kRows;
  int64_t block = 0;  // latents that belong together, such as those of a head; 0: all of them
};

// fp32, of one shape.
struct MatrixSlot {
  MatrixKind kind;
  at::Tensor master;
  at::Tensor first;   // running mean of gradients
  at::Tensor second;  // running mean of squared gradients; undefined for Muon
  at::Tensor scale;   // root mean square that each latent began with: [r, 1] or [1, r]
};

// A slot for training `initial` (any type; copied): moments are zero. LibTorch's exceptions pass
// through.
MatrixSlot MakeSlot(const at::Tensor& initial, const MatrixKind& kind, Optimizer optimizer);

// The gradient in one piece. LibTorch's exception unless it is fp32, on the CPU and of the slot's
// shape.
at::Tensor CheckedGradient(const MatrixSlot& slot, const at::Tensor& gradient);

// Of the elements of each latent, with both dimensions kept.
at::Tensor MeanOfLatents(const at::Tensor& x, LatentAxis axis);

}  // namespace latentforge::finetune
