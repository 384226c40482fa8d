#include "worker/finetune/relative_adam.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace latentforge::finetune {

namespace {

// Of the elements of each latent, with both dimensions kept.
at::Tensor MeanOfLatents(const at::Tensor& x, LatentAxis axis) {
  return x.mean(axis == LatentAxis::kRows ? 1 : 0, /*keepdim=*/true);
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

void Step(AdamSlot& slot, const at::Tensor& gradient, int64_t count, double rate,
          const AdamOptions& options) {
  slot.first.mul_(options.beta1).add_(gradient, 1 - options.beta1);
  slot.second.mul_(options.beta2).addcmul_(gradient, gradient, 1 - options.beta2);
  const double first_bias = 1 - std::pow(options.beta1, static_cast<double>(count));
  const double second_bias = 1 - std::pow(options.beta2, static_cast<double>(count));
  // sqrt(v / bias) + eps · sqrt(mean(v) / bias), the bias taken out of both.
  const at::Tensor mean = MeanOfLatents(slot.second, slot.axis);
  const at::Tensor denominator = slot.second.sqrt() + options.relative_epsilon * mean.sqrt();
  // 0 / tiny where there was no gradient.
  const at::Tensor step = slot.first / denominator.clamp_min_(std::numeric_limits<float>::min());
  if (options.weight_decay > 0) {
    slot.master.mul_(1 - rate * options.weight_decay * mean.gt(0).to(at::kFloat));
  }
  slot.master.addcmul_(step, slot.scale, -rate * std::sqrt(second_bias) / first_bias);
}

}  // namespace latentforge::finetune
