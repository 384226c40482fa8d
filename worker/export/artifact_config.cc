#include "worker/export/artifact_config.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace latentforge::exporter {
namespace {

// Unlike Json it keeps the order of keys.
using OrderedJson = nlohmann::ordered_json;

OrderedJson RanksToJson(const checkpoint::LatentConfig& latent) {
  OrderedJson ranks = OrderedJson::array();
  for (const checkpoint::LayerRanks& layer : latent.ranks) {
    ranks.push_back(latent.joint ? OrderedJson::array({layer.joint})
                                 : OrderedJson::array({layer.k, layer.v}));
  }
  return ranks;
}

OrderedJson RanksToJson(const checkpoint::LowRankConfig& low_rank) {
  OrderedJson ranks = OrderedJson::array();
  for (const checkpoint::LinearRanks& layer : low_rank.ranks) {
    ranks.push_back({{"q", layer.q},
                     {"k", layer.k},
                     {"v", layer.v},
                     {"o", layer.o},
                     {"gate", layer.gate},
                     {"up", layer.up},
                     {"down", layer.down}});
  }
  return ranks;
}

// The source's text with `section` under "latentforge".
absl::StatusOr<std::string> ConfigText(absl::string_view source_config, OrderedJson section,
                                       checkpoint::DType dtype) {
  // The strict parser refuses what the ordered one would accept.
  LF_RETURN_IF_ERROR(Annotate(ParseJson(source_config).status(), "config.json"));
  OrderedJson config = OrderedJson::parse(source_config.begin(), source_config.end(), nullptr,
                                          /*allow_exceptions=*/false);
  if (!config.is_object()) return absl::InvalidArgumentError("config.json is not an object");
  if (config.contains("latentforge")) {
    return absl::InvalidArgumentError(
        "config.json has the key latentforge: the source is an artifact already");
  }
  if (!checkpoint::IsWeightType(dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("output type is ", checkpoint::NameOf(dtype), ", expected F32, F16 or BF16"));
  }
  config["architectures"] = {"LatentforgeForCausalLM"};
  config["model_type"] = "latentforge";
  config["auto_map"] = {{"AutoConfig", "configuration_latentforge.LatentforgeConfig"},
                        {"AutoModelForCausalLM", "modeling_latentforge.LatentforgeForCausalLM"}};
  const std::string torch_name(TorchNameOf(dtype));
  if (config.contains("torch_dtype")) config["torch_dtype"] = torch_name;
  if (config.contains("dtype") || !config.contains("torch_dtype")) config["dtype"] = torch_name;
  config["latentforge"] = std::move(section);
  std::string text = config.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
  // What we write has to read as the model that we mean.
  LF_RETURN_IF_ERROR(Annotate(checkpoint::ParseModelConfig(text).status(), "config.json to write"));
  return text;
}

}  // namespace

absl::string_view TorchNameOf(checkpoint::DType dtype) {
  switch (dtype) {
    case checkpoint::DType::kBF16:
      return "bfloat16";
    case checkpoint::DType::kF16:
      return "float16";
    default:
      return "float32";
  }
}

absl::StatusOr<std::string> ArtifactConfigText(absl::string_view source_config,
                                               const checkpoint::LatentConfig& latent,
                                               checkpoint::DType dtype) {
  return ConfigText(source_config,
                    {{"format_version", checkpoint::LatentConfig::kFormatVersion},
                     {"base_model_type", latent.base_model_type},
                     {"latent", latent.joint ? "joint" : "separate"},
                     {"ranks", RanksToJson(latent)}},
                    dtype);
}

absl::StatusOr<std::string> ArtifactConfigText(absl::string_view source_config,
                                               const checkpoint::LowRankConfig& low_rank,
                                               checkpoint::DType dtype) {
  return ConfigText(source_config,
                    {{"format_version", checkpoint::LowRankConfig::kFormatVersion},
                     {"method", "low_rank"},
                     {"base_model_type", low_rank.base_model_type},
                     {"block_identity", low_rank.block_identity},
                     {"bias", low_rank.bias},
                     {"ranks", RanksToJson(low_rank)}},
                    dtype);
}

}  // namespace latentforge::exporter
