// The arithmetic of Adam on plain fp32 arrays, each in one pass over memory. Thread-safe on
// arrays of their own.
#pragma once

#include <cstdint>

namespace latentforge::finetune {

// first = beta1 · first + (1 - beta1) · g and second = beta2 · second + (1 - beta2) · g², with
// g = factor · gradient. All of `count` elements, and apart in memory.
void UpdateMoments(const float* gradient, float factor, int64_t count, float beta1, float beta2,
                   float* first, float* second);

// What the step of each element takes from its latent.
struct LatentStep {
  float floor = 0;  // added to the root of the second moment
  float pace = 0;   // how far a quotient of one moves
  float keep = 1;   // what the value itself is multiplied by
};

// x = keep · x - pace · first / (sqrt(second) + floor) for `width` elements of one latent; 0 / 0
// is no step.
void MoveLatent(const float* first, const float* second, const LatentStep& latent, int64_t width,
                float* x);

// The same where element i is one of latent i. floor, pace and keep: [width].
void MoveAcrossLatents(const float* first, const float* second, const float* floor,
                       const float* pace, const float* keep, int64_t width, float* x);

}  // namespace latentforge::finetune
