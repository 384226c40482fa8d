// Weights of one layer at a time, from a mapped checkpoint to a device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/linear_maps.h"
#include "worker/model/projection.h"

namespace latentforge::model {

// A norm of the hidden states: LayerNorm where it has a bias, else RMSNorm. Without weight: none,
// what it is given stays as it is.
struct Norm {
  at::Tensor weight;  // [D]
  at::Tensor bias;    // [D]

  bool defined() const { return weight.defined(); }
};

// One decoder layer. Tensors are contiguous, on one device, of one type. With a
// joint latent k.down and v.down are the same tensor.
struct LayerWeights {
  int64_t layer = 0;
  // Of what attention and MLP are fed; in models with norm_before off, of the states after each.
  Norm input_norm, post_attention_norm;
  at::Tensor q_norm, k_norm;  // [head_dim]; undefined without QK-norm
  Projection q, k, v, o;
  // Either both of them as one dense map [2F, D], the gate's rows and then the rows of up; or,
  // where one of them is of low rank, each by itself. Without a gate up alone.
  Projection gate_up;
  Projection gate, up;
  Projection mlp_down;
};

// Turns gate_up, where it is defined, into gate and up, which are views of it.
void SplitGateUp(LayerWeights& weights);

// Reads weights of a checkpoint and casts them. Mapped pages are given back as
// soon as they have been copied, so resident memory is what is returned here.
// Borrows the checkpoint. Every method is const and safe for concurrent use.
// Errors: NotFound and DataLoss as Checkpoint::Tensor, DataLoss for an order of channels
// that is no permutation, ResourceExhausted when memory runs out.
class WeightLoader {
 public:
  // With `stored` every tensor is as it comes back after it was stored in that type.
  WeightLoader(const checkpoint::Checkpoint& checkpoint, at::Device device, at::ScalarType dtype,
               std::optional<at::ScalarType> stored = std::nullopt)
      : checkpoint_(&checkpoint), device_(device), dtype_(dtype), stored_(stored) {}

  const checkpoint::ModelConfig& config() const { return checkpoint_->config(); }
  at::Device device() const { return device_; }
  at::ScalarType dtype() const { return dtype_; }

  // OutOfRange when there is no such layer.
  absl::StatusOr<LayerWeights> Layer(int64_t layer) const;

  // What the first layer takes, [ids.size(), D], for sequences of `length` tokens at positions
  // 0, 1, …, one after the other: rows of the embedding, projected to D where its width is another,
  // plus learned positions where the model has them. InvalidArgument names an id outside the
  // vocabulary and its position, or a length that does not divide the ids or goes beyond learned
  // positions. Touches only the rows it needs.
  absl::StatusOr<at::Tensor> Embed(absl::Span<const int32_t> ids, int64_t length) const;

  // Undefined where the model has none.
  absl::StatusOr<Norm> FinalNorm() const;

  // Rows [begin, end) of the output head, which is the embedding when tied: [end - begin, D]. Where
  // the embedding's width is another they are multiplied by the projection to it, so that they are
  // what normed states meet in any model. OutOfRange unless 0 <= begin <= end <= vocabulary.
  absl::StatusOr<at::Tensor> LmHeadRows(int64_t begin, int64_t end) const;

  // Any tensor of the catalogue, on the CPU as `dtype`.
  absl::StatusOr<at::Tensor> Tensor(absl::string_view name, at::ScalarType dtype) const;

 private:
  absl::StatusOr<at::Tensor> Load(absl::string_view name) const;
  // Rows [begin, end) of a matrix.
  absl::StatusOr<at::Tensor> LoadRows(absl::string_view name, int64_t begin, int64_t end) const;
  // Rounds the loaded tensor to the stored type.
  at::Tensor AsStored(const at::Tensor& tensor) const;
  absl::StatusOr<Norm> LoadNorm(const std::string& module) const;
  absl::StatusOr<at::Tensor> EmbedTokens(absl::Span<const int32_t> ids) const;
  // A map of the table, dense or with the factors of the method low_rank.
  absl::StatusOr<Projection> LoadMap(int64_t layer, const checkpoint::LinearMap& map) const;
  // down.weight with the columns of its identity.
  absl::StatusOr<at::Tensor> LoadDown(const std::string& module) const;
  // `up` behind `down`, as the method kv_latent names them.
  absl::StatusOr<Projection> LoadLatent(int64_t layer, absl::string_view down,
                                        absl::string_view up) const;
  absl::Status LoadKeyValue(int64_t layer, const checkpoint::LinearMap& k,
                            const checkpoint::LinearMap& v, LayerWeights& weights) const;
  absl::Status LoadInner(int64_t layer, const checkpoint::LinearMap& gate,
                         const checkpoint::LinearMap& up, LayerWeights& weights) const;
  absl::StatusOr<Projection> LoadGateUp(int64_t layer) const;

  const checkpoint::Checkpoint* checkpoint_;
  at::Device device_;
  at::ScalarType dtype_;
  std::optional<at::ScalarType> stored_;
};

}  // namespace latentforge::model
