#include "service/store/sqlite_rows.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "service/store/record_columns.h"
#include "service/store/store.h"

namespace latentforge::service {
namespace {

// Written once, at creation.
constexpr char kFixed[] = "id, tenant, job, estimate, output_path, needs";

// "?, ?" for "a, b".
std::string ParametersOf(absl::string_view columns) {
  return absl::StrJoin(std::vector<char>(static_cast<size_t>(CountColumns(columns)), '?'), ", ",
                       [](std::string* out, char parameter) { out->push_back(parameter); });
}

}  // namespace

absl::StatusOr<int64_t> OrdinalOf(Database& db, absl::string_view id) {
  LF_ASSIGN_OR_RETURN(Statement query, db.Prepare("SELECT ordinal FROM jobs WHERE id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, query.BindText(id).Step());
  if (!found) return JobNotFoundError(id);
  return query.Int();
}

std::string SelectJobs() {
  return absl::StrCat("SELECT ordinal, version, ", kFixed, ", ", kMutableColumns, " FROM jobs ");
}

std::string InsertJob() {
  return absl::StrCat("INSERT INTO jobs (version, ", kFixed, ", ", kMutableColumns, ") VALUES (1, ",
                      ParametersOf(kFixed), ", ", ParametersOf(kMutableColumns), ")");
}

std::string UpdateJob() {
  return absl::StrCat("UPDATE jobs SET version = version + 1, (", kMutableColumns, ") = (",
                      ParametersOf(kMutableColumns), ") WHERE version = ? AND id = ?");
}

void BindJob(const JobRecord& record, Statement& statement) {
  statement.BindText(record.id)
      .BindText(record.tenant)
      .BindBlob(FixedPart(record.job))
      .BindBlob(record.estimate.SerializeAsString())
      .BindText(record.output_path)
      .BindText(record.needs);
  BindMutable(record, statement);
}

void BindMutable(const JobRecord& record, Statement& statement) {
  BindMutableColumns(record, statement);
}

absl::StatusOr<JobRecord> ReadJob(Statement& row) { return ReadJobColumns(row); }

absl::StatusOr<std::vector<JobRecord>> ReadJobs(Statement& query) {
  std::vector<JobRecord> records;
  while (true) {
    LF_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return records;
    LF_ASSIGN_OR_RETURN(records.emplace_back(), ReadJob(query));
  }
}

std::string SelectAttempts() { return absl::StrCat("SELECT ", kAttemptColumns, " FROM attempts "); }

std::string PutAttemptSql() {
  return absl::StrCat("INSERT OR REPLACE INTO attempts (ordinal, ", kAttemptColumns,
                      ") VALUES (?, ", ParametersOf(kAttemptColumns), ")");
}

void BindAttempt(const AttemptRecord& attempt, Statement& statement) {
  BindAttemptColumns(attempt, statement);
}

absl::StatusOr<AttemptRecord> ReadAttempt(Statement& row) { return ReadAttemptColumns(row); }

}  // namespace latentforge::service
