// What config.json says about a model, checked and with defaults filled in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "checkpoint/dtype.h"

namespace latentforge::checkpoint {

enum class Family { kLlama, kMistral, kQwen2, kQwen3, kOpt };

// The model_type of the family: "llama", "mistral", "qwen2", "qwen3", "opt".
absl::string_view FamilyName(Family family);

// What hidden states are normed by: RMSNorm, or LayerNorm with a bias.
enum class NormKind { kRms, kLayer };

// How attention knows of positions: queries and keys are rotated by them (RoPE), or embeddings of
// positions are added to those of tokens.
enum class Positions { kRotary, kLearned };

// down(silu(gate x) * up x), or down(relu(up x)) without a gate.
enum class MlpKind { kGated, kPlain };

// How RoPE frequencies are changed. kLlama3 as in transformers' "llama3".
struct RopeScaling {
  enum class Kind { kNone, kLlama3 };

  Kind kind = Kind::kNone;
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  int64_t original_max_position_embeddings = 0;
};

// Cached values per token of one layer. A rank of the full width (kv_width, joint
// 2 * kv_width) means that the projection is dense.
struct LayerRanks {
  int64_t k = 0;      // separate latents
  int64_t v = 0;      // separate latents
  int64_t joint = 0;  // one latent for K and V

  int64_t total() const { return k + v + joint; }
  friend bool operator==(const LayerRanks&, const LayerRanks&) = default;
};

// Artifacts of the method kv_latent ("latentforge" in config.json).
struct LatentConfig {
  static constexpr int64_t kFormatVersion = 1;

  std::string base_model_type;
  bool joint = false;
  std::vector<LayerRanks> ranks;  // one per layer
};

// Ranks of the linear maps of one layer; 0: the map is dense.
struct LinearRanks {
  int64_t q = 0;
  int64_t k = 0;
  int64_t v = 0;
  int64_t o = 0;
  int64_t gate = 0;
  int64_t up = 0;
  int64_t down = 0;

  friend bool operator==(const LinearRanks&, const LinearRanks&) = default;
};

// Artifacts of the method low_rank (LatentLLM): y = up (down x) + bias.
struct LowRankConfig {
  static constexpr int64_t kFormatVersion = 2;

  std::string base_model_type;
  bool block_identity = true;      // r columns of `down` are the identity and are not stored
  bool bias = false;               // every low-rank map has a bias, also where the source has none
  std::vector<LinearRanks> ranks;  // one per layer
};

// A decoder of one of the families. All sizes are positive.
struct ModelConfig {
  Family family = Family::kLlama;
  std::string model_type;  // as written: a family's name, or "latentforge"
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  // Of the embedding of tokens and the output head. Where it is not hidden_size, projections
  // without biases lie between them and the layers.
  int64_t embedding_size = 0;
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-6;
  // Norms are taken of what attention and MLP are fed, and of the last layer's output. False: of
  // the states after attention and MLP were added to them, and nowhere else (OPT-350m).
  bool norm_before = true;
  MlpKind mlp = MlpKind::kGated;
  Positions positions = Positions::kRotary;
  double rope_theta = 10000;  // this and the scaling: of rotary positions
  RopeScaling rope_scaling;
  int64_t max_position_embeddings = 0;
  // Per layer: query position q sees key positions k with q - window < k <= q;
  // nullopt means all k <= q.
  std::vector<std::optional<int64_t>> sliding_window;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;  // RMSNorm over head_dim on Q and K, before RoPE
  bool tie_word_embeddings = false;
  DType dtype = DType::kF32;  // as announced; the tensors' own types count
  // At most one of the two; neither: a model as it was trained.
  std::optional<LatentConfig> latent;
  std::optional<LowRankConfig> low_rank;

  bool gated() const { return mlp == MlpKind::kGated; }
  bool rotary() const { return positions == Positions::kRotary; }
  bool projects_embeddings() const { return embedding_size != hidden_size; }
  // An artifact of latentforge.
  bool converted() const { return latent.has_value() || low_rank.has_value(); }
  // Width of the K projection, and of V's.
  int64_t kv_width() const { return num_kv_heads * head_dim; }
  int64_t q_width() const { return num_heads * head_dim; }
};

// Reads config.json in the style of transformers 4 (rope_theta, rope_scaling,
// torch_dtype) or 5 (rope_parameters, dtype); meaning and defaults as in
// transformers 5.17. InvalidArgument for missing, mistyped or contradictory
// values; Unimplemented for a model type or an option that we do not run. Both
// name the key and its value.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json_text);

}  // namespace latentforge::checkpoint
