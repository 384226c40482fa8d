// How the PostgreSQL store writes a new job.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "service/store/postgres_db.h"
#include "service/store/store.h"

namespace latentforge::service::postgres {

// Job, labels, events and request, within the caller's transaction; returns the ordinal. Errors
// of Store::Create.
absl::StatusOr<int64_t> WriteJob(PgConnection& connection, const NewJob& job);

}  // namespace latentforge::service::postgres
