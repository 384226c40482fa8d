// The learning rate of a step.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace latentforge::finetune {

// Rises evenly over `warmup` steps to `peak`, then falls as half a cosine to 0 after the
// last step. `step` counts from 0; never 0 within the steps.
inline double LearningRate(int64_t step, int64_t steps, int64_t warmup, double peak) {
  warmup = std::min(warmup, steps);
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const double share = static_cast<double>(step - warmup) / static_cast<double>(steps - warmup);
  return peak * 0.5 * (1 + std::cos(std::numbers::pi * share));
}

}  // namespace latentforge::finetune
