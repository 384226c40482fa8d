#include "worker/convert/published_result.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/phase.h"

namespace latentforge::convert {
namespace {

constexpr int64_t kMaxReportBytes = int64_t{64} << 20;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

// Each object of the list `key`.
template <typename F>
absl::Status ForEachOf(const JsonObject& report, const char* key, const F& read) {
  const Json* list = report.Find(key);
  if (list == nullptr || !list->is_array()) return report.Wrong(key, "a list");
  for (const Json& entry : *list) {
    LF_ASSIGN_OR_RETURN(const JsonObject object,
                        JsonObject::Create(entry, absl::StrCat("report.json: ", key)));
    LF_RETURN_IF_ERROR(read(object));
  }
  return absl::OkStatus();
}

absl::Status ReadPhases(const JsonObject& report, ResultEvent& result) {
  return ForEachOf(report, "phases", [&](const JsonObject& entry) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const std::string name, entry.String("name"));
    LF_ASSIGN_OR_RETURN(const double seconds, entry.Number("seconds"));
    LF_ASSIGN_OR_RETURN(const double speed, entry.Number("tokens_per_second"));
    for (const Phase phase : kPhases) {
      if (name != PhaseName(phase)) continue;
      result.phases.push_back({phase, seconds, speed});
      return absl::OkStatus();
    }
    return entry.Wrong("name", "a phase");
  });
}

absl::Status ReadRanks(const JsonObject& report, ResultEvent& result) {
  return ForEachOf(report, "layers", [&](const JsonObject& entry) -> absl::Status {
    factorize::LayerRanks ranks;
    LF_ASSIGN_OR_RETURN(ranks.key, entry.IntOr("rank_k", 0, kMost, 0));
    LF_ASSIGN_OR_RETURN(ranks.value, entry.IntOr("rank_v", 0, kMost, 0));
    LF_ASSIGN_OR_RETURN(ranks.joint, entry.IntOr("rank_kv", 0, kMost, 0));
    result.rank_profile.push_back(ranks);
    return absl::OkStatus();
  });
}

absl::StatusOr<ResultEvent> Read(const Json& json) {
  LF_ASSIGN_OR_RETURN(const JsonObject report, JsonObject::Create(json, "report.json"));
  ResultEvent result;
  LF_ASSIGN_OR_RETURN(const JsonObject perplexity, report.Object("perplexity"));
  LF_ASSIGN_OR_RETURN(result.perplexity_base, perplexity.Number("base"));
  LF_ASSIGN_OR_RETURN(result.perplexity_converted, perplexity.Number("converted"));
  LF_ASSIGN_OR_RETURN(const JsonObject cache, report.Object("kv_cache"));
  LF_ASSIGN_OR_RETURN(const JsonObject bytes, cache.Object("bytes_per_token"));
  LF_ASSIGN_OR_RETURN(result.kv_bytes_per_token_base, bytes.Int("base", 0, kMost));
  LF_ASSIGN_OR_RETURN(result.kv_bytes_per_token_converted, bytes.Int("converted", 0, kMost));
  LF_ASSIGN_OR_RETURN(result.peak_rss_bytes, report.Int("peak_rss_bytes", 0, kMost));
  LF_RETURN_IF_ERROR(ReadPhases(report, result));
  LF_RETURN_IF_ERROR(ReadRanks(report, result));
  return result;
}

}  // namespace

absl::StatusOr<ResultEvent> ResultOf(const exporter::PublishedArtifact& artifact) {
  const std::filesystem::path path = artifact.path / "report.json";
  LF_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxReportBytes));
  const absl::StatusOr<Json> json = ParseJson(text);
  absl::StatusOr<ResultEvent> result = json.ok() ? Read(*json) : json.status();
  if (!result.ok()) {
    return WithReason(
        absl::DataLossError(absl::StrCat(artifact.path.string(), ": ", result.status().message())),
        "ARTIFACT_CORRUPT");
  }
  result->artifact_uri = UriFromPath(artifact.path);
  result->report_uri = UriFromPath(path);
  result->manifest_sha256 = artifact.manifest_sha256;
  return result;
}

}  // namespace latentforge::convert
