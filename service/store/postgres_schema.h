// The tables of the PostgreSQL store and their versions.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "service/store/postgres_db.h"

namespace latentforge::service {

// The version that this build reads and writes.
int CurrentPostgresSchemaVersion();

// How long servers that start at the same time wait for the one that migrates, and
// how long that may take.
PgConnection::Timeouts MigrationTimeouts();

// Brings an empty or older database to `version` in one transaction, which
// several servers may try at once, and records it in schema_migrations. One that has it
// is only read: servers may then have a role that cannot create tables.
// FailedPrecondition for a newer database. Other servers wait until the connection ends.
absl::Status MigratePostgres(PgConnection& connection,
                             int version = CurrentPostgresSchemaVersion());

}  // namespace latentforge::service
