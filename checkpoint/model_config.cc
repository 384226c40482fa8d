#include "checkpoint/model_config.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "checkpoint/artifact_section.h"
#include "checkpoint/attention_config.h"
#include "checkpoint/opt_config.h"
#include "checkpoint/unsupported_options.h"

namespace latentforge::checkpoint {
namespace {

// Bounds far above any model, so that products of two sizes and sums over all
// layers fit 64 bits.
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxPositions = int64_t{1} << 31;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

constexpr char kArtifactType[] = "latentforge";

// What a family's configuration class in transformers assumes for absent keys.
struct FamilyDefaults {
  Family family;
  absl::string_view name;
  int64_t max_position_embeddings;
  int64_t num_kv_heads;  // 0: as many as query heads
  int64_t head_dim;      // 0: hidden_size / num_heads
  const char* inner_key = "intermediate_size";
};

constexpr FamilyDefaults kFamilies[] = {
    {Family::kLlama, "llama", 2048, 0, 0},        {Family::kMistral, "mistral", 131072, 8, 0},
    {Family::kQwen2, "qwen2", 32768, 32, 0},      {Family::kQwen3, "qwen3", 32768, 32, 128},
    {Family::kOpt, "opt", 2048, 0, 0, "ffn_dim"},
};

absl::StatusOr<FamilyDefaults> FindFamily(const JsonObject& object, absl::string_view key,
                                          absl::string_view name) {
  for (const FamilyDefaults& row : kFamilies) {
    if (row.name == name) return row;
  }
  return absl::UnimplementedError(
      absl::StrCat(object.what(), ": \"", key, "\" is \"", name.substr(0, 80),
                   "\"; supported are llama, mistral, qwen2, qwen3, opt"));
}

absl::StatusOr<FamilyDefaults> ParseFamily(const JsonObject& object, ModelConfig& config) {
  LF_ASSIGN_OR_RETURN(config.model_type, object.String("model_type"));
  if (config.model_type != kArtifactType) {
    if (object.Has(kArtifactType)) {
      return object.Wrong("model_type", "\"latentforge\", as the key \"latentforge\" is there");
    }
    return FindFamily(object, "model_type", config.model_type);
  }
  LF_ASSIGN_OR_RETURN(const JsonObject latent, object.Object(kArtifactType));
  LF_ASSIGN_OR_RETURN(const std::string base, latent.String("base_model_type"));
  return FindFamily(latent, "base_model_type", base);
}

absl::Status ParseHeads(const JsonObject& object, const Json& json, const FamilyDefaults& defaults,
                        ModelConfig& config) {
  LF_ASSIGN_OR_RETURN(config.num_heads, object.Int("num_attention_heads", 1, kMaxWidth));
  // An explicit null means as many as query heads, an absent key the default.
  const bool is_null = json.contains("num_key_value_heads") && !object.Has("num_key_value_heads");
  const int64_t fallback =
      is_null || defaults.num_kv_heads == 0 ? config.num_heads : defaults.num_kv_heads;
  LF_ASSIGN_OR_RETURN(config.num_kv_heads,
                      object.IntOr("num_key_value_heads", 1, kMaxWidth, fallback));
  if (config.num_heads % config.num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(object.what(), ": \"num_attention_heads\" is ", config.num_heads,
                     ", expected a multiple of \"num_key_value_heads\", ", config.num_kv_heads));
  }
  if (object.Has("head_dim") || defaults.head_dim != 0) {
    LF_ASSIGN_OR_RETURN(config.head_dim, object.IntOr("head_dim", 2, kMaxWidth, defaults.head_dim));
  } else {
    if (config.hidden_size % config.num_heads != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(object.what(), ": \"hidden_size\" is ", config.hidden_size,
                       ", expected a multiple of \"num_attention_heads\", ", config.num_heads));
    }
    config.head_dim = config.hidden_size / config.num_heads;
  }
  if (config.q_width() > kMaxWidth) {
    return absl::InvalidArgumentError(
        absl::StrCat(object.what(), ": \"num_attention_heads\" * \"head_dim\" is ",
                     config.q_width(), ", expected at most ", kMaxWidth));
  }
  return absl::OkStatus();
}

absl::Status ParseSizes(const JsonObject& object, const Json& json, const FamilyDefaults& defaults,
                        ModelConfig& config) {
  LF_ASSIGN_OR_RETURN(config.hidden_size, object.Int("hidden_size", 1, kMaxWidth));
  LF_ASSIGN_OR_RETURN(config.intermediate_size, object.Int(defaults.inner_key, 1, kMaxWidth));
  LF_ASSIGN_OR_RETURN(config.num_layers, object.Int("num_hidden_layers", 1, kMaxLayers));
  LF_ASSIGN_OR_RETURN(config.vocab_size, object.Int("vocab_size", 1, kMaxVocabulary));
  LF_ASSIGN_OR_RETURN(
      config.max_position_embeddings,
      object.IntOr("max_position_embeddings", 1, kMaxPositions, defaults.max_position_embeddings));
  config.embedding_size = config.hidden_size;
  return ParseHeads(object, json, defaults, config);
}

absl::Status ParseNorm(const JsonObject& object, ModelConfig& config) {
  LF_ASSIGN_OR_RETURN(config.norm_eps, object.NumberOr("rms_norm_eps", 1e-6));
  if (config.norm_eps > 0 && config.norm_eps < 1) return absl::OkStatus();
  return object.Wrong("rms_norm_eps", "a number above 0 and below 1");
}

absl::Status ParseBiases(const JsonObject& object, ModelConfig& config) {
  LF_ASSIGN_OR_RETURN(const bool attention_bias, object.BoolOr("attention_bias", false));
  switch (config.family) {
    case Family::kLlama:
    case Family::kQwen3:
      config.qkv_bias = config.o_bias = attention_bias;
      break;
    case Family::kQwen2:
      config.qkv_bias = true;
      break;
    case Family::kMistral:
    case Family::kOpt:
      break;
  }
  LF_ASSIGN_OR_RETURN(config.mlp_bias, object.BoolOr("mlp_bias", false));
  config.qk_norm = config.family == Family::kQwen3;
  return absl::OkStatus();
}

// What the families but OPT have in common.
absl::Status ParseDecoder(const JsonObject& object, const Json& json, ModelConfig& config) {
  LF_RETURN_IF_ERROR(ParseNorm(object, config));
  LF_RETURN_IF_ERROR(ParseBiases(object, config));
  LF_RETURN_IF_ERROR(ParseRope(object, config));
  LF_RETURN_IF_ERROR(ParseSlidingWindows(object, json, config));
  LF_ASSIGN_OR_RETURN(config.tie_word_embeddings, object.BoolOr("tie_word_embeddings", false));
  return absl::OkStatus();
}

absl::Status ParseAnnouncedType(const JsonObject& object, ModelConfig& config) {
  const char* const key = object.Has("dtype") ? "dtype" : "torch_dtype";
  LF_ASSIGN_OR_RETURN(const std::string name, object.StringOr(key, "float32"));
  const absl::StatusOr<DType> dtype = ParseTorchDType(name);
  if (!dtype.ok() || !IsWeightType(*dtype)) {
    return absl::UnimplementedError(absl::StrCat(object.what(), ": \"", key, "\" is \"",
                                                 name.substr(0, 80),
                                                 "\"; supported are float32, float16, bfloat16"));
  }
  config.dtype = *dtype;
  return absl::OkStatus();
}

}  // namespace

absl::string_view FamilyName(Family family) {
  for (const FamilyDefaults& row : kFamilies) {
    if (row.family == family) return row.name;
  }
  return "unknown";
}

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json_text) {
  absl::StatusOr<Json> json = ParseJson(json_text, {.max_depth = 32, .max_bytes = kMaxConfigBytes});
  if (!json.ok()) return Annotate(json.status(), "config.json");
  LF_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Create(*json, "config.json"));
  ModelConfig config;
  LF_ASSIGN_OR_RETURN(const FamilyDefaults defaults, ParseFamily(object, config));
  config.family = defaults.family;
  LF_RETURN_IF_ERROR(RefuseUnsupportedOptions(object, config.family));
  LF_RETURN_IF_ERROR(ParseSizes(object, *json, defaults, config));
  LF_RETURN_IF_ERROR(config.family == Family::kOpt ? ParseOptDecoder(object, config)
                                                   : ParseDecoder(object, *json, config));
  LF_RETURN_IF_ERROR(ParseAnnouncedType(object, config));
  if (object.Has(kArtifactType)) {
    LF_ASSIGN_OR_RETURN(const JsonObject section, object.Object(kArtifactType));
    LF_RETURN_IF_ERROR(ParseArtifactSection(section, config));
  }
  return config;
}

}  // namespace latentforge::checkpoint
