#include "worker/finetune/weight_gradients.h"

#include <ATen/ATen.h>

namespace latentforge::finetune {
namespace {

// Of W in y = x · Wᵀ, from the one by y.
at::Tensor DenseGradient(const at::Tensor& gradient, const at::Tensor& x) {
  return gradient.to(at::kFloat).t().mm(x.to(at::kFloat));
}

}  // namespace

TrainableWeights WeightGradients(const TrainableWeights& weights,
                                 const model::LayerGraph::Gradients& layer) {
  const at::Tensor input = layer.normed.to(at::kFloat);
  TrainableWeights result;
  if (weights.q.defined()) result.q = DenseGradient(layer.query, input);
  if (weights.o.defined()) result.o = DenseGradient(layer.projected, layer.attended);
  // Gives the up-projection's gradient and returns the latent's.
  const auto back = [&](const at::Tensor& down, const at::Tensor& up, const at::Tensor& gradient,
                        at::Tensor& up_gradient) {
    const at::Tensor g = gradient.to(at::kFloat);
    up_gradient = g.t().mm(input.mm(down.to(at::kFloat).t()));
    return g.mm(up.to(at::kFloat));
  };
  if (weights.kv_down.defined()) {
    const at::Tensor latent = back(weights.kv_down, weights.k_up, layer.key, result.k_up) +
                              back(weights.kv_down, weights.v_up, layer.value, result.v_up);
    result.kv_down = latent.t().mm(input);
    return result;
  }
  if (weights.k_down.defined()) {
    result.k_down = back(weights.k_down, weights.k_up, layer.key, result.k_up).t().mm(input);
  }
  if (weights.v_down.defined()) {
    result.v_down = back(weights.v_down, weights.v_up, layer.value, result.v_up).t().mm(input);
  }
  return result;
}

}  // namespace latentforge::finetune
