#include "worker/model/layer_graph.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/layer_gradients.h"
#include "worker/model/torch_guard.h"

namespace latentforge::model {
namespace {

// ||given - target||^2 / ||target||^2, and the gradient of `weight` times that.
double AttentionLoss(const at::Tensor& given, const AttentionTarget& target, at::Tensor& gradient) {
  const at::Tensor wanted = target.output.to(at::kFloat);
  const at::Tensor difference = given.to(at::kFloat).sub_(wanted);
  const double scale = wanted.square().sum(at::kDouble).item<double>();
  const double loss = difference.square().sum(at::kDouble).item<double>() / scale;
  gradient = difference.mul_(2 * target.weight / scale).to(given.scalar_type());
  return loss;
}

// Rows whose MLP is differentiated together: [rows, 2F] stays a few megabytes.
constexpr int64_t kMlpRows = 512;

}  // namespace

absl::StatusOr<LayerGraph> LayerGraph::Create(const checkpoint::ModelConfig& config,
                                              at::Device device, at::ScalarType dtype,
                                              int64_t max_length) {
  if (max_length <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence length is ", max_length, ", expected at least 1"));
  }
  LayerGraph graph;
  graph.config_ = config;
  graph.max_length_ = max_length;
  if (!config.rotary()) return graph;
  LF_ASSIGN_OR_RETURN(
      graph.rope_,
      CatchTorch([&] { return MakeRopeTable(config, max_length, device, dtype); }, "RoPE table"));
  LF_ASSIGN_OR_RETURN(graph.back_,
                      CatchTorch([&] { return InverseRope(graph.rope_); }, "RoPE table"));
  return graph;
}

at::Tensor LayerGraph::ApplyNorm(const at::Tensor& x, const Norm& norm) const {
  return NormGraph(x, norm, config_.norm_eps);
}

// The heads of y [B * T, heads * head_dim], normed and rotated.
at::Tensor LayerGraph::Turn(const at::Tensor& y, const at::Tensor& norm, int64_t length) const {
  const at::Tensor normed =
      config_.qk_norm
          ? RmsNormGraph(y.view({-1, config_.head_dim}), norm, config_.norm_eps).view(y.sizes())
          : y;
  return config_.rotary() ? RopeGraph(normed, length, rope_, back_) : normed;
}

at::Tensor LayerGraph::Attend(const LayerWeights& weights, const Result& projected,
                              int64_t length) const {
  // unbind: the way back joins its parts once, where narrow would pad each of them.
  const auto sequences = [&](const at::Tensor& y) {
    return y.view({-1, length, y.size(1) / config_.head_dim, config_.head_dim}).unbind(0);
  };
  const std::vector<at::Tensor> q = sequences(Turn(projected.query, weights.q_norm, length));
  const std::vector<at::Tensor> k = sequences(Turn(projected.key, weights.k_norm, length));
  const std::vector<at::Tensor> v = sequences(projected.value);
  const std::optional<int64_t> window = config_.sliding_window[static_cast<size_t>(weights.layer)];
  std::vector<at::Tensor> attended;
  attended.reserve(q.size());
  for (size_t i = 0; i < q.size(); ++i) {
    attended.push_back(AttentionGraph(q[i], k[i], v[i], window));
  }
  return attended.size() == 1 ? attended[0] : at::cat(attended);
}

LayerGraph::Result LayerGraph::Attention(const LayerWeights& weights,
                                         const at::Tensor& hidden) const {
  TORCH_CHECK(
      hidden.dim() == 3 && hidden.size(1) <= max_length_ && hidden.size(2) == config_.hidden_size,
      "hidden states do not fit the model");
  const at::Tensor rows = hidden.reshape({-1, config_.hidden_size});
  Result result;
  result.normed = config_.norm_before ? ApplyNorm(rows, weights.input_norm) : rows;
  result.query = Project(result.normed, weights.q);
  result.key = Project(result.normed, weights.k);
  result.value = Project(result.normed, weights.v);
  result.attended = Attend(weights, result, hidden.size(1));
  result.output = Project(result.attended, weights.o);
  return result;
}

LayerGraph::Inner LayerGraph::MlpInner(const LayerWeights& weights,
                                       const at::Tensor& states) const {
  Inner inner;
  inner.residual = config_.norm_before ? states : ApplyNorm(states, weights.input_norm);
  const at::Tensor input =
      config_.norm_before ? ApplyNorm(states, weights.post_attention_norm) : inner.residual;
  if (!config_.gated()) {
    inner.gate_up = Project(input, weights.up);
    inner.activated = at::relu(inner.gate_up);
    return inner;
  }
  inner.gate_up = weights.gate_up.defined()
                      ? Project(input, weights.gate_up)
                      : at::cat({Project(input, weights.gate), Project(input, weights.up)}, 1);
  inner.activated = SiluMultiplyGraph(inner.gate_up);
  return inner;
}

LayerGraph::Result LayerGraph::Forward(const LayerWeights& weights,
                                       const at::Tensor& hidden) const {
  Result result = Attention(weights, hidden);
  const Inner inner = MlpInner(weights, hidden.reshape({-1, config_.hidden_size}) + result.output);
  const at::Tensor sum = inner.residual + Project(inner.activated, weights.mlp_down);
  result.output = (config_.norm_before ? sum : ApplyNorm(sum, weights.post_attention_norm))
                      .view(hidden.sizes());
  return result;
}

at::Tensor LayerGraph::BehindNorm(const LayerWeights& weights, const Inner& inner,
                                  const at::Tensor& output_gradient) const {
  const at::Tensor sum =
      (inner.residual + Project(inner.activated, weights.mlp_down)).detach().requires_grad_();
  return torch::autograd::grad({ApplyNorm(sum, weights.post_attention_norm)}, {sum},
                               {output_gradient})[0];
}

at::Tensor LayerGraph::AttentionOutput(const LayerWeights& weights,
                                       const at::Tensor& hidden) const {
  const at::AutoGradMode without_gradients(false);
  return Attention(weights, hidden).output;
}

LayerGraph::Gradients LayerGraph::Differentiate(const LayerWeights& weights,
                                                const at::Tensor& hidden,
                                                const at::Tensor& output_gradient,
                                                const AttentionTarget& target,
                                                const MlpGradientObserver& mlp) const {
  const at::AutoGradMode with_gradients(true);
  const at::Tensor input = hidden.detach().requires_grad_();
  const Result half = Attention(weights, input);
  const at::Tensor rows_in = input.reshape({-1, config_.hidden_size});
  const at::Tensor attended = rows_in.detach() + half.output.detach();
  // First by the layer's output, then by what attention gave: through the residual, and through
  // the MLP.
  const at::Tensor outer = output_gradient.reshape({-1, config_.hidden_size});
  const at::Tensor gradient = outer.clone(at::MemoryFormat::Contiguous);
  const at::Tensor mlp_output = config_.norm_before ? outer : at::empty_like(gradient);
  for (int64_t begin = 0; begin < attended.size(0); begin += kMlpRows) {
    const int64_t count = std::min(kMlpRows, attended.size(0) - begin);
    const at::Tensor rows = attended.narrow(0, begin, count).requires_grad_();
    const at::Tensor part = gradient.narrow(0, begin, count);
    const Inner inner = MlpInner(weights, rows);
    std::vector<at::Tensor> by = {rows};
    if (mlp) by.push_back(inner.gate_up);
    const at::Tensor added = mlp_output.narrow(0, begin, count);
    if (!config_.norm_before) added.copy_(BehindNorm(weights, inner, part));
    // The last product is linear: its gradient does without its output.
    const auto found = torch::autograd::grad({inner.residual, inner.activated}, by,
                                             {added, ProjectBack(added, weights.mlp_down)});
    if (mlp) mlp(found[1]);
    part.copy_(found[0]);
  }
  at::Tensor projected = gradient;
  double attention_loss = 0;
  if (target.output.defined()) {
    at::Tensor by_target;
    attention_loss = AttentionLoss(half.output.detach(), target, by_target);
    projected = gradient + by_target;
  }
  const auto found = torch::autograd::grad(
      {rows_in, half.output}, {input, half.query, half.key, half.value}, {gradient, projected});
  return {.normed = half.normed.detach(),
          .attended = half.attended.detach(),
          .query = found[1],
          .key = found[2],
          .value = found[3],
          .projected = projected,
          .mlp_output = mlp_output,
          .input = found[0],
          .attention_loss = attention_loss};
}

}  // namespace latentforge::model
