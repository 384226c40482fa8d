#include "checkpoint/unsupported_options.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::checkpoint {
namespace {

absl::Status Refuse(const JsonObject& object, absl::string_view key, absl::string_view supported) {
  std::string value = WriteJson(*object.Find(key));
  if (value.size() > 80) value = value.substr(0, 77) + "...";
  return absl::UnimplementedError(
      absl::StrCat(object.what(), ": \"", key, "\" is ", value, "; supported is ", supported));
}

// Keys whose presence names a mechanism. null, false, 0, "" and empty lists or
// objects mean that it is off.
constexpr const char* kMechanisms[] = {"quantization_config",
                                       "compression_config",
                                       "attn_logit_softcapping",
                                       "final_logit_softcapping",
                                       "logit_softcapping",
                                       "query_pre_attn_scalar",
                                       "num_experts",
                                       "num_local_experts",
                                       "n_routed_experts",
                                       "moe_intermediate_size",
                                       "use_qk_norm",
                                       "qk_layernorm",
                                       "clip_qkv",
                                       "alibi",
                                       "use_parallel_residual",
                                       "parallel_attn",
                                       "no_rope_layers",
                                       "attention_sinks",
                                       "attention_chunk_size",
                                       "kv_lora_rank",
                                       "num_nextn_predict_layers",
                                       "cross_attention_layers",
                                       "rope_interleaved",
                                       "is_encoder_decoder",
                                       "add_cross_attention",
                                       "vision_config",
                                       "pruned_heads"};

// Multipliers: 1 means off.
constexpr const char* kMultipliers[] = {"embedding_multiplier", "residual_multiplier",
                                        "attention_multiplier", "logits_scaling",
                                        "logit_scale",          "embedding_scale"};

bool IsOff(const Json& value) {
  return value == false || value == 0 || value == "" ||
         ((value.is_array() || value.is_object()) && value.empty());
}

// "LlamaForCausalLM" of kLlama.
std::string ArchitectureOf(Family family) {
  switch (family) {
    case Family::kLlama:
      return "LlamaForCausalLM";
    case Family::kMistral:
      return "MistralForCausalLM";
    case Family::kQwen2:
      return "Qwen2ForCausalLM";
    case Family::kQwen3:
      return "Qwen3ForCausalLM";
    case Family::kOpt:
      return "OPTForCausalLM";
  }
  return "";
}

absl::Status CheckArchitecture(const JsonObject& object, Family family) {
  const bool artifact = object.Has("latentforge");
  const std::string expected = artifact ? "LatentforgeForCausalLM" : ArchitectureOf(family);
  if (object.Has("architectures") && *object.Find("architectures") != Json::array({expected})) {
    return Refuse(object, "architectures", absl::StrCat("[\"", expected, "\"]"));
  }
  // Code of its own may compute anything; ours is known.
  if (object.Has("auto_map") && !artifact)
    return Refuse(object, "auto_map", "a model without code of its own");
  return absl::OkStatus();
}

// Biases that transformers gives a family whatever config.json says.
absl::Status CheckFixedBiases(const JsonObject& object, Family family) {
  if (family != Family::kLlama) {
    LF_ASSIGN_OR_RETURN(const bool mlp_bias, object.BoolOr("mlp_bias", false));
    if (mlp_bias) return Refuse(object, "mlp_bias", absl::StrCat("false for ", FamilyName(family)));
  }
  if (family == Family::kMistral || family == Family::kQwen2) {
    const bool fixed = family == Family::kQwen2;
    LF_ASSIGN_OR_RETURN(const bool bias, object.BoolOr("attention_bias", fixed));
    if (bias != fixed) {
      return Refuse(object, "attention_bias",
                    absl::StrCat(fixed ? "true" : "false", " for ", FamilyName(family)));
    }
  }
  return absl::OkStatus();
}

// Each family reads keys of its own.
absl::Status CheckActivation(const JsonObject& object, Family family) {
  const auto check = [&](const char* key, const char* expected) {
    const Json* const value = object.Find(key);
    if (value == nullptr || *value == expected) return absl::OkStatus();
    return Refuse(object, key, absl::StrCat("\"", expected, "\""));
  };
  if (family == Family::kOpt) return check("activation_function", "relu");
  LF_RETURN_IF_ERROR(check("hidden_act", "silu"));
  return check("hidden_activation", "silu");
}

}  // namespace

absl::Status RefuseUnsupportedOptions(const JsonObject& object, Family family) {
  LF_RETURN_IF_ERROR(CheckArchitecture(object, family));
  LF_RETURN_IF_ERROR(CheckFixedBiases(object, family));
  for (const char* const key : kMechanisms) {
    const Json* const value = object.Find(key);
    if (value != nullptr && !IsOff(*value)) return Refuse(object, key, "a model without it");
  }
  for (const char* const key : kMultipliers) {
    const Json* const value = object.Find(key);
    if (value != nullptr && *value != 1) return Refuse(object, key, "1");
  }
  LF_RETURN_IF_ERROR(CheckActivation(object, family));
  const Json* const tp = object.Find("pretraining_tp");
  if (tp != nullptr && *tp != 1) return Refuse(object, "pretraining_tp", "1");
  const Json* const position = object.Find("position_embedding_type");
  if (family != Family::kOpt && position != nullptr && *position != "rope") {
    return Refuse(object, "position_embedding_type", "\"rope\"");
  }
  return absl::OkStatus();
}

}  // namespace latentforge::checkpoint
