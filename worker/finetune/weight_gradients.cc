#include "worker/finetune/weight_gradients.h"

#include <ATen/ATen.h>

namespace latentforge::finetune {
namespace {

// Of W in y = x · Wᵀ, from the one by y.
at::Tensor DenseGradient(const at::Tensor& gradient, const at::Tensor& x) {
  return gradient.t().mm(x);
}

}  // namespace

// Products of the activations' type: bf16 rounds each element by 2⁻⁹ of itself once, after sums
// in fp32; what other tokens would have given differs far more.
TrainableWeights WeightGradients(const TrainableWeights& weights,
                                 const model::LayerGraph::Gradients& layer) {
  const at::Tensor& input = layer.normed;
  TrainableWeights result;
  if (weights.q.defined()) result.q = DenseGradient(layer.query, input);
  if (weights.o.defined()) result.o = DenseGradient(layer.projected, layer.attended);
  if (weights.kv_down.defined()) {
    const at::Tensor latent = input.mm(weights.kv_down.t());
    result.k_up = DenseGradient(layer.key, latent);
    result.v_up = DenseGradient(layer.value, latent);
    const at::Tensor by_latent = layer.key.mm(weights.k_up).addmm_(layer.value, weights.v_up);
    result.kv_down = DenseGradient(by_latent, input);
  }
  if (weights.k_down.defined()) {
    result.k_up = DenseGradient(layer.key, input.mm(weights.k_down.t()));
    result.k_down = DenseGradient(layer.key.mm(weights.k_up), input);
  }
  if (weights.v_down.defined()) {
    result.v_up = DenseGradient(layer.value, input.mm(weights.v_down.t()));
    result.v_down = DenseGradient(layer.value.mm(weights.v_up), input);
  }
  return Map(result, [](const at::Tensor& x) { return x.to(at::kCPU, at::kFloat); });
}

}  // namespace latentforge::finetune
