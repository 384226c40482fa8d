// How the SQLite store finds the job whose turn it is.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/store/sqlite_db.h"
#include "service/store/store.h"

namespace latentforge::service::sqlite {

// Store::Claim within the caller's transaction.
absl::StatusOr<std::optional<JobRecord>> ClaimNext(Database& db, const ClaimQuery& query,
                                                   const Store::DecideClaim& decide);

// As Store::WaitingNeeds.
absl::StatusOr<std::vector<std::string>> ReadWaitingNeeds(Database& db, absl::string_view tenant);

// QUOTA_QUEUED_KINDS when the job would be of one kind too many.
absl::Status CheckKinds(Database& db, const JobRecord& record, int64_t max_kinds);

// What the tenant's jobs use now.
absl::StatusOr<TenantUse> ReadUse(Database& db, absl::string_view tenant);

// Its statements, for tests of what they read.
struct ClaimSql {
  std::string next_needs;     // of a tenant, after some
  std::string next_tenant;    // with its first needs, after one
  std::string first_of_kind;  // of (tenant, needs), claimable at a time
  std::string running;        // of a tenant
  std::string waiting;        // of a tenant
  std::string next_paused;    // as next_needs, of paused jobs
  std::string has_needs;      // whether (tenant, needs) waits
};
const ClaimSql& ClaimStatements();

}  // namespace latentforge::service::sqlite
