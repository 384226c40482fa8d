#include "checkpoint/artifact_section.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/linear_maps.h"

namespace latentforge::checkpoint {
namespace {

constexpr size_t kQuoted = 80;  // bytes of a wrong value that a message shows

// The list "ranks", with one entry for each layer.
absl::StatusOr<const Json*> RankEntries(const JsonObject& section, const ModelConfig& config) {
  const Json* const ranks = section.Find("ranks");
  if (ranks == nullptr || !ranks->is_array() ||
      static_cast<int64_t>(ranks->size()) != config.num_layers) {
    return section.Wrong(
        "ranks", absl::StrCat("a list with one entry for each of ", config.num_layers, " layers"));
  }
  return ranks;
}

// One entry of "ranks": [r_k, r_v], or [r] where joint.
absl::StatusOr<LayerRanks> ParseLayerRanks(const JsonObject& section, const Json& entry, bool joint,
                                           int64_t width) {
  const int64_t highest = joint ? 2 * width : width;
  const auto is_rank = [highest](const Json& value) {
    return value.is_number_unsigned() && value.get<uint64_t>() >= 1 &&
           value.get<uint64_t>() <= static_cast<uint64_t>(highest);
  };
  if (!entry.is_array() || entry.size() != (joint ? 1 : 2) ||
      !std::all_of(entry.begin(), entry.end(), is_rank)) {
    return absl::InvalidArgumentError(absl::StrCat(
        section.what(), ": \"ranks\" has the entry ", WriteJson(entry).substr(0, kQuoted),
        ", expected ", joint ? "[r]" : "[r_k, r_v]", " with ranks from 1 to ", highest));
  }
  if (joint) return LayerRanks{0, 0, entry[0].get<int64_t>()};
  return LayerRanks{entry[0].get<int64_t>(), entry[1].get<int64_t>(), 0};
}

absl::StatusOr<LatentConfig> ParseLatent(const JsonObject& section, const ModelConfig& config) {
  LF_RETURN_IF_ERROR(
      section.RejectUnknownKeys({"format_version", "base_model_type", "latent", "ranks"}));
  LatentConfig latent;
  LF_ASSIGN_OR_RETURN(latent.base_model_type, section.String("base_model_type"));
  LF_ASSIGN_OR_RETURN(const std::string kind, section.String("latent"));
  if (kind != "separate" && kind != "joint") {
    return section.Wrong("latent", "\"separate\" or \"joint\"");
  }
  latent.joint = kind == "joint";
  LF_ASSIGN_OR_RETURN(const Json* const entries, RankEntries(section, config));
  for (const Json& entry : *entries) {
    LF_ASSIGN_OR_RETURN(const LayerRanks layer,
                        ParseLayerRanks(section, entry, latent.joint, config.kv_width()));
    latent.ranks.push_back(layer);
  }
  return latent;
}

// One entry of "ranks": {"q": r, …, "down": r}. A rank that saves nothing is refused: its map is to
// be stored dense, and with a block identity there would be no columns left beside it.
absl::StatusOr<LinearRanks> ParseLinearRanks(const JsonObject& entry, const ModelConfig& config,
                                             bool block_identity) {
  LF_RETURN_IF_ERROR(entry.RejectUnknownKeys({"q", "k", "v", "o", "gate", "up", "down"}));
  LinearRanks ranks;
  for (const LinearMap& map : LinearMaps(config)) {
    LF_ASSIGN_OR_RETURN(ranks.*map.rank, entry.Int(map.key, 0, std::min(map.out, map.in)));
    const int64_t largest = LargestRank(map, block_identity);
    if (ranks.*map.rank > largest) {
      return entry.Wrong(map.key, absl::StrCat("at most ", largest,
                                               ", or 0 for a dense map: its factors "
                                               "are no smaller than [",
                                               map.out, ", ", map.in, "]"));
    }
  }
  return ranks;
}

absl::StatusOr<bool> RequiredBool(const JsonObject& section, absl::string_view key) {
  if (!section.Has(key)) return section.Wrong(key, "true or false");
  return section.BoolOr(key, false);
}

absl::StatusOr<LowRankConfig> ParseLowRank(const JsonObject& section, const ModelConfig& config) {
  LF_RETURN_IF_ERROR(section.RejectUnknownKeys(
      {"format_version", "method", "base_model_type", "block_identity", "bias", "ranks"}));
  LowRankConfig low_rank;
  LF_ASSIGN_OR_RETURN(const std::string method, section.String("method"));
  if (method != "low_rank") {
    return absl::UnimplementedError(absl::StrCat(section.what(), ": \"method\" is \"",
                                                 method.substr(0, kQuoted),
                                                 "\"; supported is low_rank"));
  }
  LF_ASSIGN_OR_RETURN(low_rank.base_model_type, section.String("base_model_type"));
  LF_ASSIGN_OR_RETURN(low_rank.block_identity, RequiredBool(section, "block_identity"));
  LF_ASSIGN_OR_RETURN(low_rank.bias, RequiredBool(section, "bias"));
  LF_ASSIGN_OR_RETURN(const Json* const entries, RankEntries(section, config));
  for (size_t layer = 0; layer < entries->size(); ++layer) {
    LF_ASSIGN_OR_RETURN(const JsonObject entry,
                        JsonObject::Create((*entries)[layer],
                                           absl::StrCat(section.what(), ": ranks[", layer, "]")));
    LF_ASSIGN_OR_RETURN(const LinearRanks ranks,
                        ParseLinearRanks(entry, config, low_rank.block_identity));
    low_rank.ranks.push_back(ranks);
  }
  return low_rank;
}

}  // namespace

absl::Status ParseArtifactSection(const JsonObject& section, ModelConfig& config) {
  LF_ASSIGN_OR_RETURN(const int64_t version, section.Int("format_version", 1, INT32_MAX));
  switch (version) {
    case LatentConfig::kFormatVersion: {
      LF_ASSIGN_OR_RETURN(config.latent, ParseLatent(section, config));
      return absl::OkStatus();
    }
    case LowRankConfig::kFormatVersion: {
      LF_ASSIGN_OR_RETURN(config.low_rank, ParseLowRank(section, config));
      return absl::OkStatus();
    }
    default:
      return absl::UnimplementedError(absl::StrCat(section.what(), ": \"format_version\" is ",
                                                   version, "; supported are 1 and 2"));
  }
}

}  // namespace latentforge::checkpoint
