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

// Where a layer's states can be seen. D is the hidden size, F the intermediate size.
enum class LayerPoint {
  kAttentionInput,  // [rows, D]: what the Q, K and V projections take, normed where norm_before is
  kAttended,        // [rows, heads * head_dim]: what the output projection takes
  kMlpInput,        // [rows, D], normed: what gate and up take
  kActivated,       // [rows, F]: what the MLP's last product takes
  kMlpOutput,       // [rows, D]: what the MLP adds to the states, before any norm
};

// Receives rows of one point. It is called once or more for a layer and point; the calls together
// cover the B * T rows, in order for each point. The tensor is overwritten after the call. An error
// stops the pass and is returned.
using LayerObserver =
    std::function<absl::Status(int64_t layer, LayerPoint point, const at::Tensor& rows)>;

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
  // do not fit the model; errors of the observer as they are. With an observer what the
  // MLP adds is rounded before the sum, as Hugging Face does, and not with it.
  absl::Status Forward(const LayerWeights& weights, const at::Tensor& hidden,
                       const LayerObserver& observer = nullptr);

  // x [..., D] normed by the model's epsilon, in a new tensor: fp32 inside, and RMSNorm
  // rounded to x's type before the multiplication by the weight, as Hugging Face.
  absl::StatusOr<at::Tensor> FinalNorm(const at::Tensor& x, const Norm& norm) const;

  // What the projections of queries, keys and values take of the states x [..., D]: x itself
  // where norms stand behind attention.
  absl::StatusOr<at::Tensor> AttentionInput(const LayerWeights& weights, const at::Tensor& x) const;

 private:
  // The Q, K and V projections, or their down factors, as one matrix; Q begins at 0.
  struct Front {
    at::Tensor weight;
    int64_t k_begin = 0;
    int64_t v_begin = 0;
  };
  // Flat buffers; each call takes the part it needs.
  struct Scratch {
    at::Tensor normed, front, attended, gate_up, activated, mlp_output;
  };

  Decoder() = default;
  static Front MakeFront(const LayerWeights& weights);
  at::Tensor Take(at::Tensor& buffer, const at::Tensor& like, int64_t width) const;
  // out = norm(x) for rows of states; `out` may be x.
  void ApplyNorm(const at::Tensor& x, const Norm& norm, const at::Tensor& out) const;
  // x += attention(norm(x)) for rows x [sequences * length, D], or x = norm(x + attention(x)).
  absl::Status Attention(const LayerWeights& weights, const Front& front, const at::Tensor& x,
                         int64_t length, const LayerObserver& observer);
  // What the MLP's last product takes, for its input [rows, D].
  at::Tensor Activated(const LayerWeights& weights, const at::Tensor& input);
  // x += mlp(norm(x)), or x = norm(x + mlp(x)).
  absl::Status Mlp(const LayerWeights& weights, const at::Tensor& x, const LayerObserver& observer);

  checkpoint::ModelConfig config_;
  int64_t max_length_ = 0;
  RopeTable rope_;
  Scratch scratch_;
};

}  // namespace latentforge::model
