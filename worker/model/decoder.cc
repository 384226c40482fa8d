#include "worker/model/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/linear_maps.h"
#include "worker/model/attention.h"
#include "worker/model/layer_ops.h"
#include "worker/model/torch_guard.h"

namespace latentforge::model {
namespace {

// Rows that go through the matrix products together: enough for their full speed,
// few enough that what lies between them stays in the cache.
constexpr int64_t kBlockRows = 2048;
// The MLP's gate and up are the widest of all that lies between.
constexpr int64_t kMlpRows = 512;

// Q, K or V [rows, out] from the output of the front product.
at::Tensor SecondFactor(const at::Tensor& front, int64_t begin, const Projection& p) {
  const at::Tensor first = front.narrow(1, begin, p.first().size(0));
  const at::Tensor result = p.low_rank() ? first.mm(p.up.t()) : first;
  if (p.bias.defined()) result.add_(p.bias);
  return result;
}

// RMSNorm over head_dim of each head of y [rows, heads * head_dim], in place.
void NormHeads(const at::Tensor& y, const at::Tensor& weight,
               const checkpoint::ModelConfig& config) {
  // One head at a time over all rows: y may be a slice, so rows and heads are not one
  // dimension.
  for (int64_t begin = 0; begin < y.size(1); begin += config.head_dim) {
    const at::Tensor head = y.narrow(1, begin, config.head_dim);
    RmsNorm(head, weight, config.norm_eps, head);
  }
}

absl::Status CheckMaps(const checkpoint::ModelConfig& config, const LayerWeights& weights) {
  const auto [q, k, v, o, gate, up, down] = checkpoint::LinearMaps(config);
  const auto check = [&](const checkpoint::LinearMap& map, const Projection& p) {
    if (map.present() ? p.Maps(map.in, map.out) : !p.defined()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("layer ", weights.layer, ": ", map.module,
                                                   " does not map ", map.in, " to ", map.out));
  };
  LF_RETURN_IF_ERROR(check(q, weights.q));
  LF_RETURN_IF_ERROR(check(k, weights.k));
  LF_RETURN_IF_ERROR(check(v, weights.v));
  LF_RETURN_IF_ERROR(check(o, weights.o));
  LF_RETURN_IF_ERROR(check(down, weights.mlp_down));
  if (weights.gate_up.defined()) {
    checkpoint::LinearMap both = gate;
    both.module = "mlp.gate_proj with mlp.up_proj";
    both.out = gate.out + up.out;
    return check(both, weights.gate_up);
  }
  LF_RETURN_IF_ERROR(check(gate, weights.gate));
  return check(up, weights.up);
}

absl::Status CheckShapes(const checkpoint::ModelConfig& config, const LayerWeights& weights,
                         const at::Tensor& hidden, int64_t max_length) {
  if (hidden.dim() != 3 || hidden.size(2) != config.hidden_size || !hidden.is_contiguous() ||
      hidden.size(1) > max_length) {
    return absl::InvalidArgumentError(absl::StrCat(
        "hidden states have ", hidden.dim(), " dimensions, the last of ", hidden.size(-1),
        ", expected a contiguous [B, T, ", config.hidden_size, "] with T at most ", max_length));
  }
  if (weights.layer < 0 || weights.layer >= config.num_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", weights.layer, " of a model with ", config.num_layers));
  }
  return CheckMaps(config, weights);
}

}  // namespace

Decoder::Front Decoder::MakeFront(const LayerWeights& weights) {
  const bool joint = weights.k.low_rank() && weights.k.down.is_same(weights.v.down);
  std::vector<at::Tensor> parts = {weights.q.first(), weights.k.first()};
  if (!joint) parts.push_back(weights.v.first());
  const int64_t k_begin = parts[0].size(0);
  return {.weight = at::cat(parts),
          .k_begin = k_begin,
          .v_begin = joint ? k_begin : k_begin + parts[1].size(0)};
}

// [rows of `like`, width] of `buffer`, which is made anew only when it is too small.
at::Tensor Decoder::Take(at::Tensor& buffer, const at::Tensor& like, int64_t width) const {
  const int64_t size = like.size(0) * width;
  if (!buffer.defined() || buffer.numel() < size) buffer = at::empty({size}, like.options());
  return buffer.narrow(0, 0, size).view({like.size(0), width});
}

absl::StatusOr<Decoder> Decoder::Create(const checkpoint::ModelConfig& config, at::Device device,
                                        at::ScalarType dtype, int64_t max_length) {
  if (max_length <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence length is ", max_length, ", expected at least 1"));
  }
  Decoder decoder;
  decoder.config_ = config;
  decoder.max_length_ = max_length;
  if (!config.rotary()) return decoder;
  LF_ASSIGN_OR_RETURN(
      decoder.rope_,
      CatchTorch([&] { return MakeRopeTable(config, max_length, device, dtype); }, "RoPE table"));
  return decoder;
}

absl::Status Decoder::Forward(const LayerWeights& weights, const at::Tensor& hidden,
                              const LayerObserver& observer) {
  LF_RETURN_IF_ERROR(CheckShapes(config_, weights, hidden, max_length_));
  return CatchTorch(
      [&]() -> absl::Status {
        const Front front = MakeFront(weights);
        const int64_t length = hidden.size(1);
        const int64_t step = std::max<int64_t>(1, kBlockRows / length);
        for (int64_t begin = 0; begin < hidden.size(0); begin += step) {
          const int64_t count = std::min(step, hidden.size(0) - begin);
          const at::Tensor rows =
              hidden.narrow(0, begin, count).view({count * length, config_.hidden_size});
          LF_RETURN_IF_ERROR(Attention(weights, front, rows, length, observer));
          for (int64_t row = 0; row < rows.size(0); row += kMlpRows) {
            const int64_t taken = std::min(kMlpRows, rows.size(0) - row);
            LF_RETURN_IF_ERROR(Mlp(weights, rows.narrow(0, row, taken), observer));
          }
        }
        return absl::OkStatus();
      },
      absl::StrCat("layer ", weights.layer));
}

absl::Status Decoder::Attention(const LayerWeights& weights, const Front& front,
                                const at::Tensor& x, int64_t length,
                                const LayerObserver& observer) {
  const at::Tensor input = config_.norm_before ? Take(scratch_.normed, x, config_.hidden_size) : x;
  if (config_.norm_before) ApplyNorm(x, weights.input_norm, input);
  if (observer) {
    LF_RETURN_IF_ERROR(observer(weights.layer, LayerPoint::kAttentionInput, input));
  }

  const at::Tensor projected = Take(scratch_.front, x, front.weight.size(0));
  ProjectInto(input, {.weight = front.weight}, projected);
  const at::Tensor q = SecondFactor(projected, 0, weights.q);
  const at::Tensor k = SecondFactor(projected, front.k_begin, weights.k);
  const at::Tensor v = SecondFactor(projected, front.v_begin, weights.v);
  if (config_.qk_norm) {
    NormHeads(q, weights.q_norm, config_);
    NormHeads(k, weights.k_norm, config_);
  }
  if (config_.rotary()) {
    ApplyRope(q, length, rope_);
    ApplyRope(k, length, rope_);
  }

  const at::Tensor attended = Take(scratch_.attended, x, config_.q_width());
  const std::optional<int64_t> window = config_.sliding_window[static_cast<size_t>(weights.layer)];
  const auto heads = [&](const at::Tensor& y, int64_t begin) {
    return y.narrow(0, begin, length).unflatten(1, {-1, config_.head_dim});
  };
  for (int64_t begin = 0; begin < x.size(0); begin += length) {
    CausalAttention(heads(q, begin), heads(k, begin), heads(v, begin), window,
                    attended.narrow(0, begin, length));
  }
  if (observer) LF_RETURN_IF_ERROR(observer(weights.layer, LayerPoint::kAttended, attended));
  AddProjected(x, attended, weights.o);
  if (!config_.norm_before) ApplyNorm(x, weights.input_norm, x);
  return absl::OkStatus();
}

at::Tensor Decoder::Activated(const LayerWeights& weights, const at::Tensor& input) {
  const int64_t inner = config_.intermediate_size;
  const at::Tensor activated = Take(scratch_.activated, input, inner);
  if (!config_.gated()) {
    ProjectInto(input, weights.up, activated);
    activated.relu_();
    return activated;
  }
  const at::Tensor gate_up = Take(scratch_.gate_up, input, 2 * inner);
  if (weights.gate_up.defined()) {
    ProjectInto(input, weights.gate_up, gate_up);
  } else {
    ProjectInto(input, weights.gate, gate_up.narrow(1, 0, inner));
    ProjectInto(input, weights.up, gate_up.narrow(1, inner, inner));
  }
  SiluMultiply(gate_up, activated);
  return activated;
}

absl::Status Decoder::Mlp(const LayerWeights& weights, const at::Tensor& x,
                          const LayerObserver& observer) {
  const at::Tensor input = config_.norm_before ? Take(scratch_.normed, x, config_.hidden_size) : x;
  if (config_.norm_before) ApplyNorm(x, weights.post_attention_norm, input);
  if (observer) LF_RETURN_IF_ERROR(observer(weights.layer, LayerPoint::kMlpInput, input));
  const at::Tensor activated = Activated(weights, input);
  if (observer) {
    LF_RETURN_IF_ERROR(observer(weights.layer, LayerPoint::kActivated, activated));
    const at::Tensor output = Take(scratch_.mlp_output, x, config_.hidden_size);
    ProjectInto(activated, weights.mlp_down, output);
    LF_RETURN_IF_ERROR(observer(weights.layer, LayerPoint::kMlpOutput, output));
    x.add_(output);
  } else {
    AddProjected(x, activated, weights.mlp_down);
  }
  if (!config_.norm_before) ApplyNorm(x, weights.post_attention_norm, x);
  return absl::OkStatus();
}

void Decoder::ApplyNorm(const at::Tensor& x, const Norm& norm, const at::Tensor& out) const {
  if (norm.bias.defined()) {
    LayerNorm(x, norm.weight, norm.bias, config_.norm_eps, out);
  } else {
    RmsNorm(x, norm.weight, config_.norm_eps, out);
  }
}

absl::StatusOr<at::Tensor> Decoder::FinalNorm(const at::Tensor& x, const Norm& norm) const {
  return CatchTorch(
      [&] {
        if (!norm.defined()) return x.clone(at::MemoryFormat::Contiguous);
        const at::Tensor rows = x.reshape({-1, x.size(-1)});
        const at::Tensor out = at::empty_like(rows);
        ApplyNorm(rows, norm, out);
        return out.view(x.sizes());
      },
      "norm");
}

absl::StatusOr<at::Tensor> Decoder::AttentionInput(const LayerWeights& weights,
                                                   const at::Tensor& x) const {
  return FinalNorm(x, config_.norm_before ? weights.input_norm : Norm());
}

}  // namespace latentforge::model
