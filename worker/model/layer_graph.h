// One decoder layer in operations that autograd can differentiate.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "checkpoint/model_config.h"
#include "worker/model/rope.h"
#include "worker/model/weights.h"

namespace latentforge::model {

// The same functions as Decoder, slower, and with gradients where at::GradMode is
// on. Immutable; safe for concurrent use.
class LayerGraph {
 public:
  struct Result {
    at::Tensor normed;  // [B * T, D], the input of the K and V projections
    at::Tensor key;     // [B * T, m], with bias, before QK-norm and RoPE
    at::Tensor value;   // [B * T, m], with bias
    at::Tensor output;  // [B, T, D]
  };

  // For sequences of up to max_length tokens at positions 0, 1, …. Errors as
  // Decoder::Create.
  static absl::StatusOr<LayerGraph> Create(const checkpoint::ModelConfig& config, at::Device device,
                                           at::ScalarType dtype, int64_t max_length);

  // hidden [B, T, D] is not changed. LibTorch's exceptions pass through.
  Result Forward(const LayerWeights& weights, const at::Tensor& hidden) const;

  // RMSNorm of x [..., D]; LibTorch's exceptions pass through.
  at::Tensor Norm(const at::Tensor& x, const at::Tensor& weight) const;

 private:
  LayerGraph() = default;
  at::Tensor Rotate(const at::Tensor& x, int64_t length) const;
  at::Tensor Attend(const LayerWeights& weights, const Result& projected, int64_t sequences,
                    int64_t length) const;

  checkpoint::ModelConfig config_;
  int64_t max_length_ = 0;
  RopeTable rope_;
};

}  // namespace latentforge::model
