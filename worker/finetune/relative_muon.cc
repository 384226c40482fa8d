#include "worker/finetune/relative_muon.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace latentforge::finetune {
namespace {

constexpr int kIterations = 5;
constexpr double kLinear = 3.4445, kCubic = -4.7750, kQuintic = 2.0315;

}  // namespace

at::Tensor Orthogonalized(const at::Tensor& x) {
  // In fp64, where no square of a gradient underflows.
  const double norm = x.norm(2, at::kDouble).item<double>();
  if (norm == 0) return at::zeros_like(x);
  const bool tall = x.size(0) > x.size(1);
  at::Tensor y = (tall ? x.t() : x) / norm;
  for (int i = 0; i < kIterations; ++i) {
    const at::Tensor gram = at::matmul(y, y.t());
    const at::Tensor quintic = at::addmm(gram, gram, gram, kCubic, kQuintic);
    y = at::addmm(y, quintic, y, kLinear, 1);
  }
  return tall ? y.t() : y;
}

void Step(MatrixSlot& slot, const at::Tensor& gradient, double factor, double rate,
          const MuonOptions& options) {
  const at::Tensor g = CheckedGradient(slot, gradient);
  const double beta = options.momentum;
  slot.first.mul_(beta).add_(g, (1 - beta) * factor);
  const at::Tensor ahead = (slot.first * beta).add_(g, (1 - beta) * factor).mul_(slot.scale);
  if (options.weight_decay > 0) slot.master.mul_(1 - rate * options.weight_decay);

  const int64_t dimension = slot.kind.axis == LatentAxis::kRows ? 0 : 1;
  const int64_t latents = ahead.size(dimension);
  const int64_t block = slot.kind.block > 0 ? slot.kind.block : latents;
  for (int64_t begin = 0; begin < latents; begin += block) {
    const int64_t width = std::min(block, latents - begin);
    const at::Tensor part = Orthogonalized(ahead.narrow(dimension, begin, width));
    // The columns of an orthogonal [n, k] have length 1: elements of 1 / sqrt(n).
    const double size = std::sqrt(static_cast<double>(std::max(part.size(0), part.size(1))));
    slot.master.narrow(dimension, begin, width)
        .sub_(part * slot.scale.narrow(dimension, begin, width), rate * options.step_size * size);
  }
}

}  // namespace latentforge::finetune
