// The forward pass of one decoder layer on many sequences.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/model_config.h"
#include "worker/model/rope.h"
#include "worker/model/weights.h"

namespace latentforge::model {

// Receives the input of the K and V projections of a layer (after the input norm),
// [rows, D]. It is called once or more for a layer; the calls together cover the
// B * T rows, in order. The tensor is overwritten after the call. An error stops
// the pass and is returned.
using InputObserver = std::function<absl::Status(int64_t layer, const at::Tensor& x)>;

// Runs layers of one model. Owns scratch memory that is used again from call to
// call, a few times (rows of a block) * intermediate_size. Not safe for concurrent
// use.
class Decoder {
 public:
  // For sequences of up to max_length tokens at positions 0, 1, …. Errors:
  // InvalidArgument when max_length is not positive, ResourceExhausted.
  static absl::StatusOr<Decoder> Create(const checkpoint::ModelConfig& config, at::Device device,
                                        at::ScalarType dtype, int64_t max_length);

  // Replaces hidden [B, T, D] by the layer's output. InvalidArgument when shapes
  // do not fit the model; errors of the observer as they are.
  absl::Status Forward(const LayerWeights& weights, const at::Tensor& hidden,
                       const InputObserver& observer = nullptr);

  // RMSNorm of x [..., D] by the model's epsilon, in a new tensor: fp32 inside, and
  // rounded to x's type before the multiplication by the weight, as Hugging Face.
  absl::StatusOr<at::Tensor> FinalNorm(const at::Tensor& x, const at::Tensor& weight) const;

 private:
  // The Q, K and V projections, or their down factors, as one matrix.
  struct Front {
    at::Tensor weight;
    int64_t k_begin = 0;
    int64_t v_begin = 0;
  };
  // Flat buffers; each call takes the part it needs.
  struct Scratch {
    at::Tensor normed, front, attended, gate_up, activated;
  };

  Decoder() = default;
  static Front MakeFront(const LayerWeights& weights);
  at::Tensor Take(at::Tensor& buffer, const at::Tensor& like, int64_t width) const;
  // x += attention(norm(x)) for rows x [sequences * length, D].
  absl::Status Attention(const LayerWeights& weights, const Front& front, const at::Tensor& x,
                         int64_t length, const InputObserver& observer);
  // x += mlp(norm(x)).
  void Mlp(const LayerWeights& weights, const at::Tensor& x);

  checkpoint::ModelConfig config_;
  int64_t max_length_ = 0;
  RopeTable rope_;
  Scratch scratch_;
};

}  // namespace latentforge::model
