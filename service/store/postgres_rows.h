// Job records as rows of the tables jobs and job_states.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/job_record.h"
#include "service/store/postgres_db.h"

namespace latentforge::service::postgres {

// "SELECT all columns FROM jobs JOIN job_states … " for ReadJob; append a WHERE.
std::string SelectJobs();

// The columns of a new job's state but for its ordinal, and as many parameters from $first on,
// which BindState gives.
std::string StateColumns();
std::string StateParameters(int first);

// UPDATE of what can change, with the parameters of BindMutable, then version and
// ordinal of the row that must match.
std::string UpdateState();

void BindState(const JobRecord& record, PgParams& params);
PgParams BindMutable(const JobRecord& record);

// DataLoss when a stored message does not parse.
absl::StatusOr<JobRecord> ReadJob(PgRows& row);

// What is left of the rows.
absl::StatusOr<std::vector<JobRecord>> ReadJobs(PgRows& rows);

// "SELECT all columns FROM attempts " for ReadAttempt; append a WHERE.
std::string SelectAttempts();

// INSERT, or replacement by number, with the parameters of BindAttempt.
std::string PutAttemptSql();
PgParams BindAttempt(int64_t ordinal, const AttemptRecord& attempt);

// DataLoss when a stored message does not parse.
absl::StatusOr<AttemptRecord> ReadAttempt(PgRows& row);

}  // namespace latentforge::service::postgres
