#include "client/rank_profile.h"

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace latentforge::client {
namespace {

constexpr int64_t kMaxRank = std::numeric_limits<int32_t>::max();

absl::StatusOr<int32_t> Rank(const JsonObject& entry, const char* snake, const char* camel) {
  LF_ASSIGN_OR_RETURN(const int64_t rank, entry.Int(entry.Has(camel) ? camel : snake, 1, kMaxRank));
  return static_cast<int32_t>(rank);
}

}  // namespace

absl::StatusOr<v1::RankProfile> ParseRankProfile(absl::string_view text, absl::string_view name) {
  absl::StatusOr<Json> json = ParseJson(text);
  if (!json.ok()) return Annotate(json.status(), name);
  LF_ASSIGN_OR_RETURN(const JsonObject root, JsonObject::Create(*json, name));
  const Json* layers = root.Find("layers");
  if (layers == nullptr || !layers->is_array() || layers->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name,
                     ": layers is no list of ranks, expected "
                     "{\"layers\": [{\"rank_k\": 64, \"rank_v\": 64}, ...]}"));
  }
  v1::RankProfile profile;
  for (size_t i = 0; i < layers->size(); ++i) {
    LF_ASSIGN_OR_RETURN(const JsonObject entry,
                        JsonObject::Create((*layers)[i], absl::StrCat(name, ": layers[", i, "]")));
    const int64_t index = static_cast<int64_t>(i);
    LF_ASSIGN_OR_RETURN([[maybe_unused]] const int64_t layer,
                        entry.IntOr("layer", index, index, index));
    v1::LayerRank* rank = profile.add_layers();
    rank->set_layer(static_cast<int32_t>(i));
    if (entry.Has("rank_kv") || entry.Has("rankKv")) {
      // A report's entry of a joint latent has rank_k and rank_v too, both 0.
      LF_ASSIGN_OR_RETURN(const int32_t rank_kv, Rank(entry, "rank_kv", "rankKv"));
      rank->set_rank_kv(rank_kv);
      continue;
    }
    LF_ASSIGN_OR_RETURN(const int32_t rank_k, Rank(entry, "rank_k", "rankK"));
    LF_ASSIGN_OR_RETURN(const int32_t rank_v, Rank(entry, "rank_v", "rankV"));
    rank->set_rank_k(rank_k);
    rank->set_rank_v(rank_v);
  }
  return profile;
}

}  // namespace latentforge::client
