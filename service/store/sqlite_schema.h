// The tables of the SQLite store and their versions.
#pragma once

#include "absl/status/status.h"
#include "service/store/sqlite_db.h"

namespace latentforge::service {

// The version that this build reads and writes.
int CurrentSchemaVersion();

// Brings an empty or older database to `version`, each step in its own transaction,
// and records it in schema_migrations. FailedPrecondition for a database that is
// newer than this build.
absl::Status Migrate(Database& db, absl::Time now, int version = CurrentSchemaVersion());

}  // namespace latentforge::service
