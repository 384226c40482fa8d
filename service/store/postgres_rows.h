// Job records as rows of the tables jobs and job_states.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "service/job_record.h"
#include "service/store/postgres_db.h"

namespace latentforge::service::postgres {

// "SELECT all columns FROM jobs JOIN job_states … " for ReadJob; append a WHERE.
std::string SelectJobs();

// INSERTs into jobs, which returns the ordinal, and job_states (version 1), with the
// parameters of BindJob and BindState.
std::string InsertJob();
std::string InsertState();

// UPDATE of what can change, with the parameters of BindMutable, then version and
// ordinal of the row that must match.
std::string UpdateState();

PgParams BindJob(const JobRecord& record);
PgParams BindState(int64_t ordinal, const JobRecord& record);
PgParams BindMutable(const JobRecord& record);

// DataLoss when a stored message does not parse.
absl::StatusOr<JobRecord> ReadJob(PgRows& row);

// "SELECT all columns FROM attempts " for ReadAttempt; append a WHERE.
std::string SelectAttempts();

// INSERT, or replacement by number, with the parameters of BindAttempt.
std::string PutAttemptSql();
PgParams BindAttempt(int64_t ordinal, const AttemptRecord& attempt);

// DataLoss when a stored message does not parse.
absl::StatusOr<AttemptRecord> ReadAttempt(PgRows& row);

}  // namespace latentforge::service::postgres
