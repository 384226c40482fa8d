// Job records as rows of the jobs table.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "service/job_record.h"
#include "service/store/sqlite_db.h"

namespace latentforge::service {

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

}  // namespace latentforge::service
