#include "worker/model/layer_ops.h"

#include <ATen/ATen.h>

namespace latentforge::model {

void RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon, const at::Tensor& out) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = wide.square().mean(-1, /*keepdim=*/true).add_(epsilon).rsqrt_();
  const at::Tensor normed = (wide * scale).to(x.scalar_type());
  out.copy_(normed.mul_(weight));
}

void SiluMultiply(const at::Tensor& gate_up, const at::Tensor& out) {
  const int64_t width = out.size(-1);
  out.copy_(gate_up.narrow(-1, 0, width));
  at::silu_(const_cast<at::Tensor&>(out)).mul_(gate_up.narrow(-1, width, width));
}

}  // namespace latentforge::model
