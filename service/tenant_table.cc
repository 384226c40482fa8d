#include "service/tenant_table.h"

#include <cmath>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "service/auth/identity.h"

namespace latentforge::service {
namespace {

constexpr char kOthers[] = "*";
constexpr char kAllowedRoots[] = "allowed_roots";
constexpr int64_t kMostJobs = 1'000'000'000;
constexpr double kLeastWeight = 0.001;
constexpr double kMostWeight = 1000;

// A root as the file names it, resolved.
absl::StatusOr<std::filesystem::path> ParseRoot(const JsonObject& object, const Json& value,
                                                const PathRoots& server_roots) {
  const std::filesystem::path root = value.is_string() ? value.get<std::string>() : "";
  if (!root.is_absolute() || root.native().find('\0') != std::string::npos)
    return object.Wrong(kAllowedRoots, "a list of absolute paths");
  LF_ASSIGN_OR_RETURN(std::filesystem::path resolved, ResolvePath(root));
  if (server_roots.empty() || IsBeneathAny(resolved, server_roots)) return resolved;
  return absl::InvalidArgumentError(absl::StrCat(
      object.what(), ": \"", kAllowedRoots, "\" holds ", root.string(),
      ", expected folders beneath the server's --allowed-root ", DescribeRoots(server_roots)));
}

// An empty list, or null, could mean everything or nothing: neither is taken.
absl::StatusOr<PathRoots> ParseRoots(const Json& tenant, const JsonObject& object,
                                     const PathRoots& others, const PathRoots& server_roots) {
  const auto list = tenant.find(kAllowedRoots);
  if (list == tenant.end()) return others;
  if (!list->is_array() || list->empty())
    return object.Wrong(kAllowedRoots, "a list of absolute paths");
  PathRoots roots;
  for (const Json& value : *list) {
    LF_ASSIGN_OR_RETURN(roots.emplace_back(), ParseRoot(object, value, server_roots));
  }
  return roots;
}

absl::StatusOr<TenantLimits> ParseLimits(const Json& value, absl::string_view tenant,
                                         const TenantLimits& others,
                                         const PathRoots& server_roots) {
  LF_ASSIGN_OR_RETURN(const JsonObject object,
                      JsonObject::Create(value, absl::StrCat("tenant ", tenant)));
  LF_RETURN_IF_ERROR(
      object.RejectUnknownKeys({"weight", "max_queued_jobs", "max_queued_kinds", "max_running_jobs",
                                "max_running_gpus", "max_submits_per_minute", kAllowedRoots}));
  TenantLimits limits;
  LF_ASSIGN_OR_RETURN(limits.weight, object.NumberOr("weight", others.weight));
  if (!(limits.weight >= kLeastWeight && limits.weight <= kMostWeight))
    return object.Wrong("weight", absl::StrCat(kLeastWeight, " to ", kMostWeight));
  const auto read = [&](const char* key, int64_t other) {
    return object.IntOr(key, 0, kMostJobs, other);
  };
  LF_ASSIGN_OR_RETURN(limits.max_queued_jobs, read("max_queued_jobs", others.max_queued_jobs));
  LF_ASSIGN_OR_RETURN(limits.max_queued_kinds, read("max_queued_kinds", others.max_queued_kinds));
  LF_ASSIGN_OR_RETURN(limits.max_running_jobs, read("max_running_jobs", others.max_running_jobs));
  LF_ASSIGN_OR_RETURN(limits.max_running_gpus, read("max_running_gpus", others.max_running_gpus));
  LF_ASSIGN_OR_RETURN(limits.max_submits_per_minute,
                      read("max_submits_per_minute", others.max_submits_per_minute));
  LF_ASSIGN_OR_RETURN(limits.allowed_roots,
                      ParseRoots(value, object, others.allowed_roots, server_roots));
  return limits;
}

}  // namespace

absl::StatusOr<TenantTable> TenantTable::Parse(absl::string_view text,
                                               const PathRoots& server_roots) {
  LF_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  LF_RETURN_IF_ERROR(JsonObject::Create(json, "the tenants file").status());
  TenantTable table(server_roots);
  if (const auto others = json.find(kOthers); others != json.end()) {
    LF_ASSIGN_OR_RETURN(table.others_, ParseLimits(*others, kOthers, table.others_, server_roots));
  }
  for (const auto& [tenant, value] : json.items()) {
    if (tenant == kOthers) continue;
    if (const std::string problem = TenantProblem(tenant); !problem.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tenant \"", absl::CHexEscape(tenant.substr(0, 80)), "\": the name ", problem));
    }
    LF_ASSIGN_OR_RETURN(table.named_[tenant],
                        ParseLimits(value, tenant, table.others_, server_roots));
  }
  return table;
}

const TenantLimits& TenantTable::Of(absl::string_view tenant) const {
  const auto found = named_.find(std::string(tenant));
  return found == named_.end() ? others_ : found->second;
}

TenantSource NoTenantLimits(PathRoots server_roots) {
  return [table = std::make_shared<const TenantTable>(std::move(server_roots))] { return table; };
}

}  // namespace latentforge::service
