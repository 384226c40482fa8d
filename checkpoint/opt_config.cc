#include "checkpoint/opt_config.h"

#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::checkpoint {
namespace {

constexpr int64_t kMaxEmbedding = int64_t{1} << 20;  // far above any model
constexpr double kEpsilon = 1e-5;                    // of torch's LayerNorm; OPT has no key for it

absl::Status ExpectBool(const JsonObject& object, absl::string_view key, bool expected) {
  LF_ASSIGN_OR_RETURN(const bool value, object.BoolOr(key, expected));
  if (value == expected) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(object.what(), ": \"", key, "\" is ",
                                               value ? "true" : "false", "; supported is ",
                                               expected ? "true" : "false"));
}

}  // namespace

absl::Status ParseOptDecoder(const JsonObject& object, ModelConfig& config) {
  LF_RETURN_IF_ERROR(ExpectBool(object, "layer_norm_elementwise_affine", true));
  LF_RETURN_IF_ERROR(ExpectBool(object, "_remove_final_layer_norm", false));
  // transformers derives both from the number of heads, whatever else config.json says.
  if (config.num_kv_heads != config.num_heads) {
    return object.Wrong("num_key_value_heads",
                        absl::StrCat("as many as \"num_attention_heads\", ", config.num_heads));
  }
  if (config.q_width() != config.hidden_size) {
    return object.Wrong("head_dim", absl::StrCat(config.hidden_size, " / ", config.num_heads));
  }
  config.norm = NormKind::kLayer;
  config.norm_eps = kEpsilon;
  config.mlp = MlpKind::kPlain;
  config.positions = Positions::kLearned;
  config.sliding_window.assign(static_cast<size_t>(config.num_layers), std::nullopt);
  LF_ASSIGN_OR_RETURN(config.norm_before, object.BoolOr("do_layer_norm_before", true));
  LF_ASSIGN_OR_RETURN(config.embedding_size,
                      object.IntOr("word_embed_proj_dim", 1, kMaxEmbedding, config.hidden_size));
  LF_ASSIGN_OR_RETURN(const bool bias, object.BoolOr("enable_bias", true));
  config.qkv_bias = config.o_bias = config.mlp_bias = bias;
  LF_ASSIGN_OR_RETURN(config.tie_word_embeddings, object.BoolOr("tie_word_embeddings", true));
  return absl::OkStatus();
}

}  // namespace latentforge::checkpoint
