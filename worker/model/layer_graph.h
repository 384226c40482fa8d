// One decoder layer in operations that autograd can differentiate.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "checkpoint/model_config.h"
#include "worker/model/rope.h"
#include "worker/model/weights.h"

namespace latentforge::model {

// What a layer's attention should give.
struct AttentionTarget {
  at::Tensor output;  // [B * T, D], after the output projection; undefined: no target
  // Of the loss ||given - output||^2 / ||output||^2, added to the one by the layer's output.
  double weight = 0;
};

// Receives the gradient by what gate and up give, [rows, 2F], block after block of the rows;
// without a gate by what up gives, [rows, F].
using MlpGradientObserver = std::function<void(const at::Tensor& gradient)>;

// The same functions as Decoder, slower, and with gradients where at::GradMode is
// on. Immutable; safe for concurrent use.
class LayerGraph {
 public:
  struct Result {
    at::Tensor normed;    // [B * T, D], the input of the Q, K and V projections, which is
                          // `hidden` itself where norms stand behind attention
    at::Tensor query;     // [B * T, heads * d], with bias, before QK-norm and RoPE
    at::Tensor key;       // [B * T, m], the same
    at::Tensor value;     // [B * T, m], with bias
    at::Tensor attended;  // [B * T, heads * d], the input of the output projection
    at::Tensor output;    // [B, T, D]
  };
  struct Gradients {
    at::Tensor normed, attended;   // not gradients: those of Result
    at::Tensor query, key, value;  // by those of Result
    at::Tensor projected;          // [B * T, D], by what the output projection gave
    at::Tensor mlp_output;         // [B * T, D], by what the MLP adds to the states
    at::Tensor input;              // [B, T, D]
    double attention_loss = 0;     // of the target, before its weight; 0 without
  };

  // For sequences of up to max_length tokens at positions 0, 1, …. Errors as
  // Decoder::Create.
  static absl::StatusOr<LayerGraph> Create(const checkpoint::ModelConfig& config, at::Device device,
                                           at::ScalarType dtype, int64_t max_length);

  // hidden [B, T, D] is not changed. LibTorch's exceptions pass through.
  Result Forward(const LayerWeights& weights, const at::Tensor& hidden) const;

  // The gradients of a loss from the one by the layer's output, [B, T, D]. Weights are
  // constants. Memory: the attention's activations of all rows and the MLP's of a few
  // hundred. LibTorch's exceptions pass through.
  Gradients Differentiate(const LayerWeights& weights, const at::Tensor& hidden,
                          const at::Tensor& output_gradient, const AttentionTarget& target = {},
                          const MlpGradientObserver& mlp = nullptr) const;

  // What the attention adds to hidden [B, T, D], as [B * T, D]. LibTorch's exceptions pass
  // through.
  at::Tensor AttentionOutput(const LayerWeights& weights, const at::Tensor& hidden) const;

  // x [..., D] normed; x itself where `norm` is undefined. LibTorch's exceptions pass through.
  at::Tensor ApplyNorm(const at::Tensor& x, const Norm& norm) const;

 private:
  LayerGraph() = default;
  at::Tensor Turn(const at::Tensor& y, const at::Tensor& norm, int64_t length) const;
  at::Tensor Attend(const LayerWeights& weights, const Result& projected, int64_t length) const;
  // As Forward, but `output` is [B * T, D], what the output projection gives.
  Result Attention(const LayerWeights& weights, const at::Tensor& hidden) const;
  // The MLP up to its last product, for states [rows, D] to which attention was added.
  struct Inner {
    at::Tensor residual;   // [rows, D], what the MLP's output is added to
    at::Tensor gate_up;    // what gate and up give, [rows, 2F], or up alone, [rows, F]
    at::Tensor activated;  // [rows, F]
  };
  Inner MlpInner(const LayerWeights& weights, const at::Tensor& states) const;
  // The gradient by what the MLP adds to the states, from the one by the norm of their sum.
  at::Tensor BehindNorm(const LayerWeights& weights, const Inner& inner,
                        const at::Tensor& output_gradient) const;

  checkpoint::ModelConfig config_;
  int64_t max_length_ = 0;
  RopeTable rope_;
  RopeTable back_;
};

}  // namespace latentforge::model
