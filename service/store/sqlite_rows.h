// Job and attempt records as rows of their tables.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/job_record.h"
#include "service/store/sqlite_db.h"

namespace latentforge::service {

// JOB_NOT_FOUND when there is no such job.
absl::StatusOr<int64_t> OrdinalOf(Database& db, absl::string_view id);

// "SELECT all columns FROM jobs " for ReadJob; append a WHERE.
std::string SelectJobs();

// INSERT with the parameters of BindJob (version 1).
std::string InsertJob();

// UPDATE of what can change, with the parameters of BindMutable, then version and
// id of the row that must match.
std::string UpdateJob();

void BindJob(const JobRecord& record, Statement& statement);
void BindMutable(const JobRecord& record, Statement& statement);

// DataLoss when a stored message does not parse.
absl::StatusOr<JobRecord> ReadJob(Statement& row);

// What is left of the query.
absl::StatusOr<std::vector<JobRecord>> ReadJobs(Statement& query);

// "SELECT all columns FROM attempts " for ReadAttempt; append a WHERE.
std::string SelectAttempts();

// INSERT OR REPLACE with the job's ordinal and the parameters of BindAttempt.
std::string PutAttemptSql();

void BindAttempt(const AttemptRecord& attempt, Statement& statement);

// DataLoss as above.
absl::StatusOr<AttemptRecord> ReadAttempt(Statement& row);

}  // namespace latentforge::service
