#include "worker/finetune/relative_adam.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/finetune/adam_rows.h"

namespace latentforge::finetune {
namespace {

// The steps of all elements; floor, pace and keep: one of each latent.
void Move(MatrixSlot& slot, const float* floor, const float* pace, const float* keep) {
  const int64_t width = slot.master.size(1);
  const float* first = slot.first.const_data_ptr<float>();
  const float* second = slot.second.const_data_ptr<float>();
  float* x = slot.master.mutable_data_ptr<float>();
  for (int64_t row = 0; row < slot.master.size(0); ++row) {
    if (slot.kind.axis == LatentAxis::kRows) {
      MoveLatent(first, second, {floor[row], pace[row], keep[row]}, width, x);
    } else {
      MoveAcrossLatents(first, second, floor, pace, keep, width, x);
    }
    first += width, second += width, x += width;
  }
}

}  // namespace

void Step(MatrixSlot& slot, const at::Tensor& gradient, double factor, int64_t count, double rate,
          const AdamOptions& options) {
  const at::Tensor g = CheckedGradient(slot, gradient);
  UpdateMoments(g.const_data_ptr<float>(), static_cast<float>(factor), g.numel(),
                static_cast<float>(options.beta1), static_cast<float>(options.beta2),
                slot.first.mutable_data_ptr<float>(), slot.second.mutable_data_ptr<float>());

  // sqrt(v / bias) + eps · sqrt(mean(v) / bias), the bias taken out of both.
  const double first_bias = 1 - std::pow(options.beta1, static_cast<double>(count));
  const double second_bias = 1 - std::pow(options.beta2, static_cast<double>(count));
  const at::Tensor mean = MeanOfLatents(slot.second, slot.kind.axis);
  const at::Tensor floor = mean.sqrt().mul_(options.relative_epsilon);
  const at::Tensor pace = slot.scale * (rate * std::sqrt(second_bias) / first_bias);
  const at::Tensor keep = 1 - mean.gt(0).to(at::kFloat).mul_(rate * options.weight_decay);
  Move(slot, floor.const_data_ptr<float>(), pace.const_data_ptr<float>(),
       keep.const_data_ptr<float>());
}

}  // namespace latentforge::finetune
