#include "worker/finetune/factor_gradients.h"

#include <ATen/ATen.h>

namespace latentforge::finetune {

LatentFactors FactorGradients(const LatentFactors& factors, const at::Tensor& x,
                              const at::Tensor& key, const at::Tensor& value) {
  const at::Tensor input = x.to(at::kFloat);
  LatentFactors result;
  // Gives the up-projection's gradient and returns the latent's.
  const auto back = [&](const at::Tensor& down, const at::Tensor& up, const at::Tensor& gradient,
                        at::Tensor& up_gradient) {
    const at::Tensor g = gradient.to(at::kFloat);
    up_gradient = g.t().mm(input.mm(down.to(at::kFloat).t()));
    return g.mm(up.to(at::kFloat));
  };
  if (factors.kv_down.defined()) {
    const at::Tensor latent = back(factors.kv_down, factors.k_up, key, result.k_up) +
                              back(factors.kv_down, factors.v_up, value, result.v_up);
    result.kv_down = latent.t().mm(input);
    return result;
  }
  if (factors.k_down.defined()) {
    result.k_down = back(factors.k_down, factors.k_up, key, result.k_up).t().mm(input);
  }
  if (factors.v_down.defined()) {
    result.v_down = back(factors.v_down, factors.v_up, value, result.v_up).t().mm(input);
  }
  return result;
}

}  // namespace latentforge::finetune
