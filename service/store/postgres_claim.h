// How the PostgreSQL store finds the job whose turn it is.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/store/postgres_db.h"
#include "service/store/store.h"

namespace latentforge::service::postgres {

// Store::Claim within the caller's transaction. Claims of all servers come one after
// another: each sees whom the one before has charged, and what it runs.
absl::StatusOr<std::optional<JobRecord>> ClaimNext(PgConnection& connection,
                                                   const ClaimQuery& query,
                                                   const Store::DecideClaim& decide);

// As Store::WaitingNeeds.
absl::StatusOr<std::vector<std::string>> ReadWaitingNeeds(PgConnection& connection,
                                                          absl::string_view tenant);

// Whether jobs of the tenant that need this wait.
absl::StatusOr<bool> HasWaitingNeeds(PgConnection& connection, absl::string_view tenant,
                                     absl::string_view needs);

// What the tenant's jobs use now.
absl::StatusOr<TenantUse> ReadUse(PgConnection& connection, absl::string_view tenant);

// Its statements, for tests of what they read.
struct ClaimSql {
  std::string kinds;          // with the first job of each that is claimable at $1
  std::string first_of_kind;  // of ($1, $2), claimable at $3
  std::string running;        // of $1
  std::string waiting;        // of $1
  std::string waiting_needs;  // of $1
};
const ClaimSql& ClaimStatements();

// A condition: jobs of the tenant that need this wait, both given as SQL.
std::string WaitingNeedsExist(absl::string_view tenant, absl::string_view needs);

}  // namespace latentforge::service::postgres
