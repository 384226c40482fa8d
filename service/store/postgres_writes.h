// What the PostgreSQL store writes, each within the caller's transaction.
#pragma once

#include "absl/status/statusor.h"
#include "service/store/postgres_db.h"
#include "service/store/store.h"

namespace latentforge::service::postgres {

// JOB_NOT_FOUND when there is no such job.
absl::StatusOr<int64_t> OrdinalOf(PgConnection& connection, absl::string_view id);

// Job, labels, events and request; returns the ordinal. Errors of Store::Create.
absl::StatusOr<int64_t> WriteJob(PgConnection& connection, const NewJob& job);

// Row, events and attempt. Errors of Store::Commit.
absl::Status WriteUpdate(PgConnection& connection, const JobUpdate& update);

// Everything of the job. Errors of Store::Delete.
absl::Status WriteDeletion(PgConnection& connection, const JobDeletion& deletion);

}  // namespace latentforge::service::postgres
