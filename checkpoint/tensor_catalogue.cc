#include "checkpoint/tensor_catalogue.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/linear_maps.h"

namespace latentforge::checkpoint {
namespace {

std::vector<TensorSpec> NormTensors(const ModelConfig& config, const std::string& module) {
  std::vector<TensorSpec> specs = {{absl::StrCat(module, ".weight"), {config.hidden_size}}};
  if (config.norm == NormKind::kLayer) {
    specs.push_back({absl::StrCat(module, ".bias"), {config.hidden_size}});
  }
  return specs;
}

// Collects the tensors of one layer.
class LayerTable {
 public:
  LayerTable(const ModelConfig& config, int64_t layer) : config_(config), layer_(layer) {}

  void Vector(absl::string_view suffix, int64_t size) { Add(suffix, {size}); }

  // A norm of the hidden states.
  void Norm(absl::string_view module) {
    for (TensorSpec& spec : NormTensors(config_, LayerTensor(layer_, module))) {
      specs_.push_back(std::move(spec));
    }
  }

  // A linear map, and its bias where there is one.
  void Linear(absl::string_view module, int64_t out, int64_t in, bool bias) {
    Add(absl::StrCat(module, ".weight"), {out, in});
    if (bias) Add(absl::StrCat(module, ".bias"), {out});
  }

  // A map of any layer: dense, or with the factors of the method low_rank.
  void Map(const LinearMap& map) {
    if (!map.present()) return;
    const int64_t rank = RankOf(config_, layer_, map);
    const bool bias = HasBias(config_, map, rank);
    if (rank == 0) {
      Linear(map.module, map.out, map.in, bias);
      return;
    }
    const bool identity = config_.low_rank->block_identity;
    if (identity) Add(absl::StrCat(map.module, ".order"), {map.in}, TensorSpec::Kind::kOrder);
    Linear(absl::StrCat(map.module, ".down"), rank, identity ? map.in - rank : map.in, false);
    Linear(absl::StrCat(map.module, ".up"), map.out, rank, bias);
  }

  // K or V ("k", "v") through a latent of `rank` values: down, then up.
  void Latent(absl::string_view which, int64_t rank) {
    const std::string module = absl::StrCat("self_attn.", which);
    Linear(absl::StrCat(module, "_down_proj"), rank, config_.hidden_size, false);
    Linear(absl::StrCat(module, "_up_proj"), config_.kv_width(), rank, config_.qkv_bias);
  }

  void KeysAndValues(const LinearMap& k, const LinearMap& v) {
    const int64_t width = config_.kv_width();
    const LayerRanks ranks = config_.latent.has_value()
                                 ? config_.latent->ranks[static_cast<size_t>(layer_)]
                                 : LayerRanks{width, width, 0};
    const bool joint = config_.latent.has_value() && config_.latent->joint;
    if (joint && ranks.joint < 2 * width) {
      Linear("self_attn.kv_down_proj", ranks.joint, config_.hidden_size, false);
      Linear("self_attn.k_up_proj", width, ranks.joint, config_.qkv_bias);
      Linear("self_attn.v_up_proj", width, ranks.joint, config_.qkv_bias);
      return;
    }
    if (joint || ranks.k == width) {
      Map(k);
    } else {
      Latent("k", ranks.k);
    }
    if (joint || ranks.v == width) {
      Map(v);
    } else {
      Latent("v", ranks.v);
    }
  }

  std::vector<TensorSpec> Take() { return std::move(specs_); }

 private:
  void Add(absl::string_view suffix, Shape shape,
           TensorSpec::Kind kind = TensorSpec::Kind::kWeight) {
    specs_.push_back({LayerTensor(layer_, suffix), std::move(shape), kind});
  }

  const ModelConfig& config_;
  const int64_t layer_;
  std::vector<TensorSpec> specs_;
};

int64_t ElementsOf(const ModelConfig& config, TensorSpec::Kind kind) {
  int64_t total = 0;
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    if (spec.kind != kind) continue;
    int64_t elements = 1;
    for (const int64_t dimension : spec.shape) elements *= dimension;
    total += elements;
  }
  return total;
}

}  // namespace

std::string LayerTensor(int64_t layer, absl::string_view suffix) {
  return absl::StrCat("model.layers.", layer, ".", suffix);
}

std::vector<TensorSpec> LayerTensors(const ModelConfig& config, int64_t layer) {
  const auto [q, k, v, o, gate, up, down] = LinearMaps(config);
  LayerTable table(config, layer);
  table.Norm("input_layernorm");
  table.Map(q);
  table.KeysAndValues(k, v);
  if (config.qk_norm) {
    table.Vector("self_attn.q_norm.weight", config.head_dim);
    table.Vector("self_attn.k_norm.weight", config.head_dim);
  }
  table.Map(o);
  table.Norm("post_attention_layernorm");
  table.Map(gate);
  table.Map(up);
  table.Map(down);
  return table.Take();
}

std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t width = config.embedding_size;
  std::vector<TensorSpec> specs = {{kEmbedTokens, {config.vocab_size, width}}};
  if (!config.rotary()) {
    specs.push_back({kEmbedPositions, {config.max_position_embeddings + kPositionOffset, hidden}});
  }
  if (config.projects_embeddings()) specs.push_back({kProjectIn, {hidden, width}});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (TensorSpec& spec : LayerTensors(config, layer)) specs.push_back(std::move(spec));
  }
  if (config.norm_before) {
    for (TensorSpec& spec : NormTensors(config, kFinalNorm)) specs.push_back(std::move(spec));
  }
  if (config.projects_embeddings()) specs.push_back({kProjectOut, {width, hidden}});
  if (!config.tie_word_embeddings) specs.push_back({kLmHead, {config.vocab_size, width}});
  return specs;
}

int64_t NumParameters(const ModelConfig& config) {
  return ElementsOf(config, TensorSpec::Kind::kWeight);
}

int64_t StoredBytes(const ModelConfig& config, DType dtype) {
  return ElementsOf(config, TensorSpec::Kind::kWeight) * BytesOf(dtype) +
         ElementsOf(config, TensorSpec::Kind::kOrder) * BytesOf(DType::kI32);
}

bool IsIgnoredTensor(absl::string_view name) { return absl::EndsWith(name, "rotary_emb.inv_freq"); }

}  // namespace latentforge::checkpoint
