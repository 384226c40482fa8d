// The tables of the SQLite store and their versions.
#pragma once

#include "absl/status/status.h"
#include "service/store/sqlite_db.h"

namespace latentforge::service {

// The version that this build reads and writes.
int CurrentSchemaVersion();

// Brings an empty or older database to `target`, the current version but for tests, each
// step in its own transaction, and records it in schema_migrations. FailedPrecondition
// for a newer database.
absl::Status Migrate(Database& db, absl::Time now, int target = CurrentSchemaVersion());

}  // namespace latentforge::service
