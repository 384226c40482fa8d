// What the SQLite store writes, each within the caller's transaction.
#pragma once

#include "absl/status/statusor.h"
#include "service/store/sqlite_db.h"
#include "service/store/store.h"

namespace latentforge::service::sqlite {

// Job, labels, events and request; returns the ordinal. Errors of Store::Create.
absl::StatusOr<int64_t> WriteJob(Database& db, const NewJob& job);

// Row, events and attempt; returns the record with its new version. Errors of Store::Commit.
absl::StatusOr<JobRecord> WriteUpdate(Database& db, const JobUpdate& update);

// Everything of the job. Errors of Store::Delete.
absl::Status WriteDeletion(Database& db, const JobDeletion& deletion);

}  // namespace latentforge::service::sqlite
