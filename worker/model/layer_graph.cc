#include "worker/model/layer_graph.h"

#include <ATen/ATen.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/torch_guard.h"

namespace latentforge::model {
namespace {

at::Tensor Project(const at::Tensor& x, const Projection& p) {
  const at::Tensor y = p.low_rank() ? x.mm(p.down.t()).mm(p.up.t()) : x.mm(p.weight.t());
  return p.bias.defined() ? y + p.bias : y;
}

// True where query i (row) sees key j (column): i - window < j <= i.
at::Tensor WindowMask(int64_t length, int64_t window, at::Device device) {
  const at::Tensor position = at::arange(length, at::TensorOptions(at::kLong).device(device));
  const at::Tensor distance = position.unsqueeze(1) - position.unsqueeze(0);
  return distance.ge(0).logical_and(distance.lt(window));
}

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
  LF_ASSIGN_OR_RETURN(
      graph.rope_,
      CatchTorch([&] { return MakeRopeTable(config, max_length, device, dtype); }, "RoPE table"));
  return graph;
}

at::Tensor LayerGraph::Norm(const at::Tensor& x, const at::Tensor& weight) const {
  const at::Tensor wide = x.to(at::promote_types(x.scalar_type(), at::kFloat));
  const at::Tensor scale =
      (wide.square().mean(-1, /*keepdim=*/true) + config_.rms_norm_eps).rsqrt();
  return (wide * scale).to(x.scalar_type()) * weight;
}

// x [B, T, heads, head_dim].
at::Tensor LayerGraph::Rotate(const at::Tensor& x, int64_t length) const {
  const int64_t half = config_.head_dim / 2;
  const at::Tensor cos = rope_.cos.narrow(0, 0, length).unsqueeze(1);
  const at::Tensor sin = rope_.sin.narrow(0, 0, length).unsqueeze(1);
  const at::Tensor a = x.narrow(-1, 0, half);
  const at::Tensor b = x.narrow(-1, half, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, -1);
}

at::Tensor LayerGraph::Attend(const LayerWeights& weights, const Result& projected,
                              int64_t sequences, int64_t length) const {
  const auto heads = [&](const at::Tensor& y) {
    return y.view({sequences, length, y.size(-1) / config_.head_dim, config_.head_dim});
  };
  at::Tensor q = heads(Project(projected.normed, weights.q));
  at::Tensor k = heads(projected.key);
  if (config_.qk_norm) {
    q = Norm(q, weights.q_norm);
    k = Norm(k, weights.k_norm);
  }
  const int64_t group = q.size(2) / k.size(2);
  const auto keys = [&](const at::Tensor& y) {
    return y.transpose(1, 2).repeat_interleave(group, /*dim=*/1);
  };
  const std::optional<int64_t> window = config_.sliding_window[static_cast<size_t>(weights.layer)];
  std::optional<at::Tensor> mask;
  if (window && *window < length) mask = WindowMask(length, *window, q.device());
  return at::scaled_dot_product_attention(Rotate(q, length).transpose(1, 2),
                                          keys(Rotate(k, length)), keys(heads(projected.value)),
                                          mask, /*dropout_p=*/0.0, /*is_causal=*/!mask.has_value())
      .transpose(1, 2)
      .reshape({sequences * length, config_.q_width()});
}

LayerGraph::Result LayerGraph::Forward(const LayerWeights& weights,
                                       const at::Tensor& hidden) const {
  TORCH_CHECK(
      hidden.dim() == 3 && hidden.size(1) <= max_length_ && hidden.size(2) == config_.hidden_size,
      "hidden states do not fit the model");
  const int64_t sequences = hidden.size(0);
  const int64_t length = hidden.size(1);
  const at::Tensor rows = hidden.reshape({sequences * length, config_.hidden_size});
  Result result;
  result.normed = Norm(rows, weights.input_norm);
  result.key = Project(result.normed, weights.k);
  result.value = Project(result.normed, weights.v);
  const at::Tensor attended = rows + Project(Attend(weights, result, sequences, length), weights.o);

  const at::Tensor gate_up = Project(Norm(attended, weights.post_attention_norm), weights.gate_up);
  const int64_t width = config_.intermediate_size;
  const at::Tensor activated =
      at::silu(gate_up.narrow(1, 0, width)) * gate_up.narrow(1, width, width);
  result.output = (attended + Project(activated, weights.mlp_down)).view(hidden.sizes());
  return result;
}

}  // namespace latentforge::model
