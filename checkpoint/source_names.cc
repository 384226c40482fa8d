#include "checkpoint/source_names.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace latentforge::checkpoint {

std::string SourceName(const ModelConfig& config, absl::string_view name) {
  if (config.family != Family::kOpt || config.converted()) return std::string(name);
  absl::string_view inner = name;
  if (!absl::ConsumePrefix(&inner, "model.")) return std::string(name);
  if (absl::ConsumePrefix(&inner, "norm.")) {
    return absl::StrCat("model.decoder.final_layer_norm.", inner);
  }
  return absl::StrCat(
      "model.decoder.",
      absl::StrReplaceAll(inner, {{".self_attn.o_proj.", ".self_attn.out_proj."},
                                  {".input_layernorm.", ".self_attn_layer_norm."},
                                  {".post_attention_layernorm.", ".final_layer_norm."},
                                  {".mlp.up_proj.", ".fc1."},
                                  {".mlp.down_proj.", ".fc2."}}));
}

std::string BareSourceName(const ModelConfig& config, absl::string_view name) {
  const std::string source = SourceName(config, name);
  if (config.family != Family::kOpt || config.converted()) return source;
  return std::string(absl::StripPrefix(source, "model."));
}

}  // namespace latentforge::checkpoint
