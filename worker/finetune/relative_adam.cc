#include "worker/finetune/relative_adam.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/finetune/adam_rows.h"

namespace latentforge::finetune {
namespace {

// Of the elements of each latent, with both dimensions kept.
at::Tensor MeanOfLatents(const at::Tensor& x, LatentAxis axis) {
  return x.mean(axis == LatentAxis::kRows ? 1 : 0, /*keepdim=*/true);
}

// The steps of all elements; floor, pace and keep: one of each latent.
void Move(AdamSlot& slot, const float* floor, const float* pace, const float* keep) {
  const int64_t width = slot.master.size(1);
  const float* first = slot.first.const_data_ptr<float>();
  const float* second = slot.second.const_data_ptr<float>();
  float* x = slot.master.mutable_data_ptr<float>();
  for (int64_t row = 0; row < slot.master.size(0); ++row) {
    if (slot.axis == LatentAxis::kRows) {
      MoveLatent(first, second, {floor[row], pace[row], keep[row]}, width, x);
    } else {
      MoveAcrossLatents(first, second, floor, pace, keep, width, x);
    }
    first += width, second += width, x += width;
  }
}

}  // namespace

AdamSlot MakeSlot(const at::Tensor& initial, LatentAxis axis) {
  AdamSlot slot;
  slot.axis = axis;
  slot.master = initial.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  slot.first = at::zeros_like(slot.master);
  slot.second = at::zeros_like(slot.master);
  slot.scale = MeanOfLatents(slot.master.square(), axis).sqrt();
  return slot;
}

void Step(AdamSlot& slot, const at::Tensor& gradient, double factor, int64_t count, double rate,
          const AdamOptions& options) {
  TORCH_CHECK(gradient.is_cpu() && gradient.scalar_type() == at::kFloat &&
                  gradient.sizes() == slot.master.sizes(),
              "a gradient is not fp32, not on the CPU or not of its matrix's shape");
  const at::Tensor g = gradient.contiguous();
  UpdateMoments(g.const_data_ptr<float>(), static_cast<float>(factor), g.numel(),
                static_cast<float>(options.beta1), static_cast<float>(options.beta2),
                slot.first.mutable_data_ptr<float>(), slot.second.mutable_data_ptr<float>());

  // sqrt(v / bias) + eps · sqrt(mean(v) / bias), the bias taken out of both.
  const double first_bias = 1 - std::pow(options.beta1, static_cast<double>(count));
  const double second_bias = 1 - std::pow(options.beta2, static_cast<double>(count));
  const at::Tensor mean = MeanOfLatents(slot.second, slot.axis);
  const at::Tensor floor = mean.sqrt().mul_(options.relative_epsilon);
  const at::Tensor pace = slot.scale * (rate * std::sqrt(second_bias) / first_bias);
  const at::Tensor keep = 1 - mean.gt(0).to(at::kFloat).mul_(rate * options.weight_decay);
  Move(slot, floor.const_data_ptr<float>(), pace.const_data_ptr<float>(),
       keep.const_data_ptr<float>());
}

}  // namespace latentforge::finetune
