// The one table of the tensors that a checkpoint holds; readers, checks, the
// artifact writer and test fixtures use it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "checkpoint/dtype.h"
#include "checkpoint/model_config.h"
#include "checkpoint/safetensors.h"

namespace latentforge::checkpoint {

struct TensorSpec {
  enum class Kind {
    kWeight,  // F32, F16 or BF16
    kOrder,   // I32, a permutation of input channels; see channel_order.h
  };

  std::string name;
  Shape shape;  // [out, in] for weights of linear maps
  Kind kind = Kind::kWeight;
};

inline constexpr char kEmbedTokens[] = "model.embed_tokens.weight";
inline constexpr char kEmbedPositions[] = "model.embed_positions.weight";
inline constexpr char kProjectIn[] = "model.project_in.weight";
inline constexpr char kProjectOut[] = "model.project_out.weight";
inline constexpr char kFinalNorm[] = "model.norm";  // with ".weight", and ".bias" of a LayerNorm
inline constexpr char kLmHead[] = "lm_head.weight";

// Position p has row p + kPositionOffset of learned positions (transformers,
// OPTLearnedPositionalEmbedding).
inline constexpr int64_t kPositionOffset = 2;

// "model.layers.LAYER.SUFFIX", for example LayerTensor(3, "self_attn.k_proj.weight").
std::string LayerTensor(int64_t layer, absl::string_view suffix);

// Tensors of one layer, in the order in which a forward pass uses them. For
// artifacts with the tensors of docs/architecture.md.
std::vector<TensorSpec> LayerTensors(const ModelConfig& config, int64_t layer);

// All tensors: embeddings, layers, final norm, projections of the embedding, and the output head
// unless tied. Names are those of the Llama family for every model; source_names.h has what a
// family's own checkpoints call them.
std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config);

// Sum over ExpectedTensors of the weights' elements; an order of channels is no parameter.
int64_t NumParameters(const ModelConfig& config);

// Bytes of ExpectedTensors, weights being of type `dtype`.
int64_t StoredBytes(const ModelConfig& config, DType dtype);

// True for tensors that some checkpoints still carry and that nothing reads
// (rotary_emb.inv_freq).
bool IsIgnoredTensor(absl::string_view name);

}  // namespace latentforge::checkpoint
