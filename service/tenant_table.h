// What each tenant may use: the contents of --tenants.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/path_roots.h"

namespace latentforge::service {

// A limit of 0 is none, and so are no roots.
struct TenantLimits {
  double weight = 1;
  int64_t max_queued_jobs = 0;  // that wait: queued or paused
  // What these may need differently of a worker, in all: a claim looks at each kind once
  // (store/claim_choice.h), whose ever it is.
  int64_t max_queued_kinds = 256;
  int64_t max_running_jobs = 0;
  int64_t max_running_gpus = 0;
  int64_t max_submits_per_minute = 0;
  PathRoots allowed_roots;  // beneath which every path of a job lies
};

// Immutable, so safe for concurrent use.
class TenantTable {
 public:
  static constexpr char kFileName[] = "tenants file";

  // Every tenant has weight 1, the server's roots, and no limits.
  explicit TenantTable(PathRoots server_roots = {}) {
    others_.allowed_roots = std::move(server_roots);
  }

  // A JSON object of tenants, each an object with members of TenantLimits; "*" holds what
  // other tenants have, and what one does not say itself. Roots are resolved, and lie beneath
  // the server's where it has some; they need not exist. InvalidArgument names the tenant and
  // the key, or where the text is no JSON.
  static absl::StatusOr<TenantTable> Parse(absl::string_view text,
                                           const PathRoots& server_roots = {});

  const TenantLimits& Of(absl::string_view tenant) const;

  // Those that have an entry of their own.
  const std::map<std::string, TenantLimits, std::less<>>& named() const { return named_; }

  size_t size() const { return named_.size(); }

 private:
  TenantLimits others_;
  std::map<std::string, TenantLimits, std::less<>> named_;
};

// The table that is in force; safe for concurrent use.
using TenantSource = std::function<std::shared_ptr<const TenantTable>()>;

// Of a server without a tenants file.
TenantSource NoTenantLimits(PathRoots server_roots = {});

}  // namespace latentforge::service
