#include "service/store/postgres_rows.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/store/record_columns.h"

namespace latentforge::service::postgres {
namespace {

// "$3,$4,$5" for (3, 3).
std::string Parameters(int first, int count) {
  std::string list;
  for (int i = first; i < first + count; ++i) absl::StrAppend(&list, i > first ? "," : "", "$", i);
  return list;
}

}  // namespace

std::string SelectJobs() {
  return absl::StrCat("SELECT ordinal, version, id, tenant, job, estimate, output_path, needs, ",
                      kMutableColumns, " FROM jobs JOIN job_states USING (ordinal) ");
}

std::string StateColumns() {
  return absl::StrCat("output_path, needs_cuda, share_tenant, needs, ", kMutableColumns);
}

std::string StateParameters(int first) { return Parameters(first, CountColumns(StateColumns())); }

std::string UpdateState() {
  const int count = CountColumns(kMutableColumns);
  return absl::StrCat("UPDATE job_states SET version = version + 1, (", kMutableColumns, ") = (",
                      Parameters(1, count), ") WHERE version = $", count + 1, " AND ordinal = $",
                      count + 2);
}

void BindState(const JobRecord& record, PgParams& params) {
  params
      .BindBlob(record.output_path)
      // Servers of the version before go by it.
      .Bind(int64_t{absl::StartsWith(record.needs, "cuda")})
      .BindText(record.tenant)
      .BindText(record.needs);
  BindMutableColumns(record, params);
}

PgParams BindMutable(const JobRecord& record) {
  PgParams params;
  BindMutableColumns(record, params);
  return params;
}

absl::StatusOr<JobRecord> ReadJob(PgRows& row) { return ReadJobColumns(row); }

absl::StatusOr<std::vector<JobRecord>> ReadJobs(PgRows& rows) {
  std::vector<JobRecord> records;
  while (rows.Next()) {
    LF_ASSIGN_OR_RETURN(records.emplace_back(), ReadJob(rows));
  }
  return records;
}

std::string SelectAttempts() { return absl::StrCat("SELECT ", kAttemptColumns, " FROM attempts "); }

std::string PutAttemptSql() {
  return absl::StrCat("INSERT INTO attempts (ordinal, ", kAttemptColumns,
                      ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
                      "ON CONFLICT (ordinal, number) DO UPDATE SET (",
                      kAttemptColumns, ") = ($2, $3, $4, $5, $6, $7, $8, $9)");
}

PgParams BindAttempt(int64_t ordinal, const AttemptRecord& attempt) {
  PgParams params;
  BindAttemptColumns(attempt, params.Bind(ordinal));
  return params;
}

absl::StatusOr<AttemptRecord> ReadAttempt(PgRows& row) { return ReadAttemptColumns(row); }

}  // namespace latentforge::service::postgres
