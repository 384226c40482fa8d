#include "checkpoint/attention_config.h"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::checkpoint {
namespace {

constexpr int64_t kMaxPositions = int64_t{1} << 31;
constexpr double kDefaultTheta = 10000;   // of transformers, for every family
constexpr int64_t kDefaultWindow = 4096;  // where the key is absent
constexpr int64_t kDefaultMaxWindowLayers = 28;

bool IsNonEmptyObject(const Json* value) {
  return value != nullptr && value->is_object() && !value->empty();
}

// transformers takes rope_scaling before rope_parameters. Two that differ are
// more likely a mistake than a choice.
absl::StatusOr<Json> RopeDictionary(const JsonObject& object) {
  const Json* const scaling = object.Find("rope_scaling");
  const Json* const parameters = object.Find("rope_parameters");
  for (const auto& [key, value] :
       {std::pair("rope_scaling", scaling), std::pair("rope_parameters", parameters)}) {
    if (value != nullptr && !value->is_object()) return object.Wrong(key, "an object or null");
  }
  if (IsNonEmptyObject(scaling) && IsNonEmptyObject(parameters) && *scaling != *parameters) {
    return object.Wrong("rope_scaling", "the same as \"rope_parameters\" where both are given");
  }
  if (IsNonEmptyObject(scaling)) return *scaling;
  if (IsNonEmptyObject(parameters)) return *parameters;
  return Json::object();
}

absl::StatusOr<double> PositiveNumber(const JsonObject& object, absl::string_view key) {
  LF_ASSIGN_OR_RETURN(const double value, object.Number(key));
  if (!(value > 0)) return object.Wrong(key, "a number above 0");
  return value;
}

absl::Status CheckFullRotary(const JsonObject& object) {
  LF_ASSIGN_OR_RETURN(const double factor, object.NumberOr("partial_rotary_factor", 1));
  if (factor == 1) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(object.what(), ": \"partial_rotary_factor\" is ",
                                               factor, "; only 1 is supported"));
}

absl::Status ParseLlama3(const JsonObject& object, const JsonObject& rope, ModelConfig& config) {
  RopeScaling& scaling = config.rope_scaling;
  scaling.kind = RopeScaling::Kind::kLlama3;
  LF_ASSIGN_OR_RETURN(scaling.factor, PositiveNumber(rope, "factor"));
  LF_ASSIGN_OR_RETURN(scaling.low_freq_factor, PositiveNumber(rope, "low_freq_factor"));
  LF_ASSIGN_OR_RETURN(scaling.high_freq_factor, PositiveNumber(rope, "high_freq_factor"));
  if (scaling.factor < 1) return rope.Wrong("factor", "a number of at least 1");
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    return rope.Wrong("high_freq_factor",
                      absl::StrCat("a number above low_freq_factor, ", scaling.low_freq_factor));
  }
  constexpr char kOriginal[] = "original_max_position_embeddings";
  // A value beside the dictionary goes first, as in transformers.
  const JsonObject& holder = object.Has(kOriginal) ? object : rope;
  LF_ASSIGN_OR_RETURN(scaling.original_max_position_embeddings,
                      holder.IntOr(kOriginal, 1, kMaxPositions, config.max_position_embeddings));
  return absl::OkStatus();
}

// nullopt when attention is not windowed anywhere.
absl::StatusOr<std::optional<int64_t>> WindowSize(const JsonObject& object, const Json& json) {
  // Absent means the class's default, null means none.
  if (json.contains("sliding_window") && !object.Has("sliding_window")) return std::nullopt;
  LF_ASSIGN_OR_RETURN(const int64_t window,
                      object.IntOr("sliding_window", 1, kMaxPositions, kDefaultWindow));
  return window;
}

// The value of layer_types for one layer: true for "sliding_attention".
absl::StatusOr<bool> IsSliding(const JsonObject& object, const Json& type) {
  if (type == "sliding_attention") return true;
  if (type == "full_attention") return false;
  if (!type.is_string()) return object.Wrong("layer_types", "a list of strings");
  return absl::UnimplementedError(
      absl::StrCat(object.what(), ": \"layer_types\" has ", WriteJson(type).substr(0, 80),
                   "; supported are full_attention, sliding_attention"));
}

absl::Status ApplyLayerTypes(const JsonObject& object, std::optional<int64_t> window,
                             ModelConfig& config) {
  const Json& types = *object.Find("layer_types");
  if (!types.is_array() || static_cast<int64_t>(types.size()) != config.num_layers) {
    return object.Wrong("layer_types",
                        absl::StrCat("a list of ", config.num_layers, " strings, one per layer"));
  }
  for (size_t layer = 0; layer < types.size(); ++layer) {
    LF_ASSIGN_OR_RETURN(const bool sliding, IsSliding(object, types[layer]));
    if (sliding && !window.has_value()) {
      return object.Wrong("layer_types", "no sliding_attention, as no sliding_window is in use");
    }
    if (!sliding && window.has_value() && config.family == Family::kMistral) {
      return object.Wrong(
          "layer_types",
          "sliding_attention in every layer of a mistral model with a sliding_window");
    }
    config.sliding_window[layer] = sliding ? window : std::nullopt;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseRope(const JsonObject& object, ModelConfig& config) {
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(object.what(), ": \"head_dim\" is ",
                                                   config.head_dim, ", expected an even number"));
  }
  LF_ASSIGN_OR_RETURN(const Json dictionary, RopeDictionary(object));
  LF_ASSIGN_OR_RETURN(
      const JsonObject rope,
      JsonObject::Create(dictionary, absl::StrCat(object.what(), ": RoPE parameters")));
  for (const auto& [key, value] : dictionary.items()) {
    if (!value.is_object()) continue;
    return absl::UnimplementedError(absl::StrCat(rope.what(), " differ by layer type (\"",
                                                 key.substr(0, 80), "\"); not supported"));
  }
  LF_RETURN_IF_ERROR(CheckFullRotary(object));
  LF_RETURN_IF_ERROR(CheckFullRotary(rope));

  LF_ASSIGN_OR_RETURN(const double outer, object.NumberOr("rope_theta", kDefaultTheta));
  LF_ASSIGN_OR_RETURN(config.rope_theta, rope.NumberOr("rope_theta", outer));
  if (!(config.rope_theta >= 1)) {
    return (rope.Has("rope_theta") ? rope : object).Wrong("rope_theta", "a number of at least 1");
  }
  LF_ASSIGN_OR_RETURN(const std::string old_type, rope.StringOr("type", "default"));
  LF_ASSIGN_OR_RETURN(const std::string type, rope.StringOr("rope_type", old_type));
  if (type == "default") return absl::OkStatus();
  if (type == "llama3") return ParseLlama3(object, rope, config);
  return absl::UnimplementedError(absl::StrCat(rope.what(), ": \"rope_type\" is \"",
                                               type.substr(0, 80),
                                               "\"; supported are default, llama3"));
}

absl::Status ParseSlidingWindows(const JsonObject& object, const Json& json, ModelConfig& config) {
  config.sliding_window.assign(static_cast<size_t>(config.num_layers), std::nullopt);
  if (config.family == Family::kLlama) {
    if (!object.Has("sliding_window")) return absl::OkStatus();
    return absl::UnimplementedError(absl::StrCat(
        object.what(), ": \"sliding_window\" is ",
        WriteJson(*object.Find("sliding_window")).substr(0, 80), "; llama models have none"));
  }
  LF_ASSIGN_OR_RETURN(std::optional<int64_t> window, WindowSize(object, json));
  int64_t first = 0;
  if (config.family != Family::kMistral) {
    LF_ASSIGN_OR_RETURN(const bool use, object.BoolOr("use_sliding_window", false));
    if (!use) window.reset();
    LF_ASSIGN_OR_RETURN(first,
                        object.IntOr("max_window_layers", 0, std::numeric_limits<int32_t>::max(),
                                     kDefaultMaxWindowLayers));
  }
  if (object.Has("layer_types")) return ApplyLayerTypes(object, window, config);
  for (int64_t layer = first; layer < config.num_layers; ++layer) {
    config.sliding_window[static_cast<size_t>(layer)] = window;
  }
  return absl::OkStatus();
}

}  // namespace latentforge::checkpoint
