// What the PostgreSQL store writes, each within the caller's transaction.
#pragma once

#include "absl/status/statusor.h"
#include "service/store/postgres_db.h"
#include "service/store/store.h"

namespace latentforge::service::postgres {

// JOB_NOT_FOUND when there is no such job.
absl::StatusOr<int64_t> OrdinalOf(PgConnection& connection, absl::string_view id);

// Why a row with this output could not be added: OUTPUT_IN_USE; Aborted STORE_BUSY when it has
// become free meanwhile, so that the transaction is worth another try.
absl::Status ExplainOutput(PgConnection& connection, const JobRecord& record);

// Whether the tenant may have one more job waiting, and whether one of a kind that it had not.
// Until the transaction ends no other one adds to what it has.
absl::Status CheckJobQuota(PgConnection& connection, const JobRecord& record, int64_t max_jobs);
absl::Status CheckNewKind(PgConnection& connection, const JobRecord& record, int64_t max_kinds);

// Row, events and attempt. Errors of Store::Commit.
absl::Status WriteUpdate(PgConnection& connection, const JobUpdate& update);

// Everything of the job. Errors of Store::Delete.
absl::Status WriteDeletion(PgConnection& connection, const JobDeletion& deletion);

}  // namespace latentforge::service::postgres
