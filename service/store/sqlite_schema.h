// The tables of the SQLite store and their versions.
#pragma once

#include "absl/status/status.h"
#include "service/store/sqlite_db.h"

namespace latentforge::service {

// Conditions of the partial indexes; a query must have the same words to use one.
// States as in v1::JobState: 1 queued, 2 running, 3 cancelling, 7 pausing, 8 paused.
inline constexpr char kIsQueued[] = "state = 1";
inline constexpr char kHoldsLease[] = "state IN (2, 3, 7)";
inline constexpr char kGoesOn[] = "state IN (1, 2, 3, 7, 8)";

// The version that this build reads and writes.
int CurrentSchemaVersion();

// Brings an empty or older database to `version`, each step in its own transaction,
// and records it in schema_migrations. FailedPrecondition for a database that is
// newer than this build.
absl::Status Migrate(Database& db, absl::Time now, int version = CurrentSchemaVersion());

}  // namespace latentforge::service
