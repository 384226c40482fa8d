#include "worker/finetune/matrix_slot.h"

#include <ATen/ATen.h>

namespace latentforge::finetune {

at::Tensor MeanOfLatents(const at::Tensor& x, LatentAxis axis) {
  return x.mean(axis == LatentAxis::kRows ? 1 : 0, /*keepdim=*/true);
}

MatrixSlot MakeSlot(const at::Tensor& initial, const MatrixKind& kind, Optimizer optimizer) {
  MatrixSlot slot;
  slot.kind = kind;
  slot.master = initial.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  slot.first = at::zeros_like(slot.master);
  if (optimizer == Optimizer::kAdamW) slot.second = at::zeros_like(slot.master);
  slot.scale = MeanOfLatents(slot.master.square(), kind.axis).sqrt();
  return slot;
}

at::Tensor CheckedGradient(const MatrixSlot& slot, const at::Tensor& gradient) {
  TORCH_CHECK(gradient.is_cpu() && gradient.scalar_type() == at::kFloat &&
                  gradient.sizes() == slot.master.sizes(),
              "a gradient is not fp32, not on the CPU or not of its matrix's shape");
  return gradient.contiguous();
}

}  // namespace latentforge::finetune
