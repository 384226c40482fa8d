#include "worker/finetune/adam_rows.h"

#include <algorithm>
#include <limits>

namespace latentforge::finetune {
namespace {

// Compiled without errno for the root, so that loops over this use vectors.
inline float Moved(float x, float first, float second, float floor, float pace, float keep) {
  const float denominator =
      std::max(__builtin_sqrtf(second) + floor, std::numeric_limits<float>::min());
  return keep * x - pace * (first / denominator);
}

}  // namespace

void UpdateMoments(const float* __restrict gradient, float factor, int64_t count, float beta1,
                   float beta2, float* __restrict first, float* __restrict second) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = factor * gradient[i];
    first[i] = beta1 * first[i] + (1 - beta1) * g;
    second[i] = beta2 * second[i] + (1 - beta2) * g * g;
  }
}

void MoveLatent(const float* __restrict first, const float* __restrict second,
                const LatentStep& latent, int64_t width, float* __restrict x) {
  const float floor = latent.floor, pace = latent.pace, keep = latent.keep;
  for (int64_t i = 0; i < width; ++i) {
    x[i] = Moved(x[i], first[i], second[i], floor, pace, keep);
  }
}

void MoveAcrossLatents(const float* __restrict first, const float* __restrict second,
                       const float* __restrict floor, const float* __restrict pace,
                       const float* __restrict keep, int64_t width, float* __restrict x) {
  for (int64_t i = 0; i < width; ++i) {
    x[i] = Moved(x[i], first[i], second[i], floor[i], pace[i], keep[i]);
  }
}

}  // namespace latentforge::finetune
