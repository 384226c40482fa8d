#include "service/store/sqlite_rows.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "service/deadlines.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

// Written once, at creation.
constexpr char kFixed[] = "id, tenant, job, estimate, output_path, needs_cuda";

constexpr char kMutable[] =
    "state, etag, status, last_sequence, update_time, end_time, due_time, queue_deadline_time, "
    "expire_time, "
    "lease_epoch, completed_epoch, "
    "counted_attempts, attempt_sequence, attempt_start_time, lease_expire_time, queue_time, "
    "claimable_time, rank_time, progress_event_time, progress_event_percent";

constexpr char kAttempt[] =
    "number, lease_epoch, worker, start_time, end_time, outcome, error, phases";

// "?, ?" for "a, b".
std::string ParametersOf(absl::string_view columns) {
  const auto commas = std::count(columns.begin(), columns.end(), ',');
  return absl::StrJoin(std::vector<char>(commas + 1, '?'), ", ",
                       [](std::string* out, char parameter) { out->push_back(parameter); });
}

void BindOptional(bool present, const google::protobuf::Timestamp& time, Statement& statement) {
  if (present) {
    statement.Bind(FromProto(time));
  } else {
    statement.BindNull();
  }
}

// Calls `field` for the place to write only when there is a time.
template <typename Field>
void ReadOptional(Statement& row, Field field) {
  if (row.NextIsNull()) {
    row.Int();
  } else {
    *field() = ToProto(row.Time());
  }
}

// What of the job never changes; the rest has columns of its own, so that a
// heartbeat does not write the specification again.
std::string FixedPart(const v1::Job& job) {
  v1::Job fixed = job;
  fixed.clear_status();
  fixed.clear_update_time();
  fixed.clear_end_time();
  fixed.clear_last_sequence();
  fixed.clear_etag();
  fixed.clear_queue_deadline_time();
  fixed.clear_expire_time();
  fixed.clear_tenant();
  return fixed.SerializeAsString();
}

}  // namespace

std::string SelectJobs() {
  return absl::StrCat("SELECT ordinal, version, ", kFixed, ", ", kMutable, " FROM jobs ");
}

std::string InsertJob() {
  return absl::StrCat("INSERT INTO jobs (version, ", kFixed, ", ", kMutable, ") VALUES (1, ",
                      ParametersOf(kFixed), ", ", ParametersOf(kMutable), ")");
}

std::string UpdateJob() {
  return absl::StrCat("UPDATE jobs SET version = version + 1, (", kMutable, ") = (",
                      ParametersOf(kMutable), ") WHERE version = ? AND id = ?");
}

void BindJob(const JobRecord& record, Statement& statement) {
  statement.BindText(record.id)
      .BindText(record.tenant)
      .BindBlob(FixedPart(record.job))
      .BindBlob(record.estimate.SerializeAsString())
      .BindText(record.output_path)
      .Bind(int64_t{record.needs_cuda});
  BindMutable(record, statement);
}

void BindMutable(const JobRecord& record, Statement& statement) {
  statement.Bind(int64_t{record.job.status().state()})
      .BindText(record.job.etag())
      .BindBlob(record.job.status().SerializeAsString())
      .Bind(record.job.last_sequence())
      .Bind(FromProto(record.job.update_time()));
  BindOptional(record.job.has_end_time(), record.job.end_time(), statement);
  if (const std::optional<Deadline> due = NextDeadline(record); due.has_value()) {
    statement.Bind(due->time);
  } else {
    statement.BindNull();
  }
  BindOptional(record.job.has_queue_deadline_time(), record.job.queue_deadline_time(), statement);
  BindOptional(record.job.has_expire_time(), record.job.expire_time(), statement);
  statement.Bind(record.lease_epoch)
      .Bind(record.completed_epoch)
      .Bind(int64_t{record.counted_attempts})
      .Bind(record.attempt_sequence)
      .Bind(record.attempt_start_time)
      .Bind(record.lease_expire_time)
      .Bind(record.queue_time)
      .Bind(record.claimable_time)
      .Bind(record.rank_time)
      .Bind(record.progress_event_time)
      .Bind(record.progress_event_percent);
}

absl::StatusOr<JobRecord> ReadJob(Statement& row) {
  JobRecord record;
  record.ordinal = row.Int();
  record.version = row.Int();
  record.id = row.Text();
  record.tenant = row.Text();
  bool parsed = record.job.ParseFromString(row.Blob());
  parsed = record.estimate.ParseFromString(row.Blob()) && parsed;
  record.job.set_tenant(record.tenant);
  record.output_path = row.Text();
  record.needs_cuda = row.Int() != 0;
  row.Int();  // the state is there for the indexes
  record.job.set_etag(row.Text());
  parsed = record.job.mutable_status()->ParseFromString(row.Blob()) && parsed;
  record.job.set_last_sequence(row.Int());
  *record.job.mutable_update_time() = ToProto(row.Time());
  ReadOptional(row, [&] { return record.job.mutable_end_time(); });
  row.Int();  // due_time follows from the rest
  ReadOptional(row, [&] { return record.job.mutable_queue_deadline_time(); });
  ReadOptional(row, [&] { return record.job.mutable_expire_time(); });
  record.lease_epoch = row.Int();
  record.completed_epoch = row.Int();
  record.counted_attempts = static_cast<int32_t>(row.Int());
  record.attempt_sequence = row.Int();
  record.attempt_start_time = row.Time();
  record.lease_expire_time = row.Time();
  record.queue_time = row.Time();
  record.claimable_time = row.Time();
  record.rank_time = row.Time();
  record.progress_event_time = row.Time();
  record.progress_event_percent = row.Double();
  if (!parsed)
    return absl::DataLossError(absl::StrCat("job ", record.id, " is corrupt in the database"));
  return record;
}

std::string SelectAttempts() { return absl::StrCat("SELECT ", kAttempt, " FROM attempts "); }

std::string PutAttemptSql() {
  return absl::StrCat("INSERT OR REPLACE INTO attempts (ordinal, ", kAttempt, ") VALUES (?, ",
                      ParametersOf(kAttempt), ")");
}

void BindAttempt(const AttemptRecord& attempt, Statement& statement) {
  // The timings are one message, for they are read and written together.
  v1::Attempt phases;
  phases.mutable_phases()->Assign(attempt.phases.begin(), attempt.phases.end());
  statement.Bind(int64_t{attempt.number})
      .Bind(attempt.lease_epoch)
      .BindText(attempt.worker)
      .Bind(attempt.start_time)
      .Bind(attempt.end_time)
      .Bind(static_cast<int64_t>(attempt.outcome))
      .BindBlob(attempt.error.SerializeAsString())
      .BindBlob(phases.SerializeAsString());
}

absl::StatusOr<AttemptRecord> ReadAttempt(Statement& row) {
  AttemptRecord attempt;
  attempt.number = static_cast<int32_t>(row.Int());
  attempt.lease_epoch = row.Int();
  attempt.worker = row.Text();
  attempt.start_time = row.Time();
  attempt.end_time = row.Time();
  attempt.outcome = static_cast<AttemptOutcome>(row.Int());
  v1::Attempt phases;
  bool parsed = attempt.error.ParseFromString(row.Blob());
  parsed = phases.ParseFromString(row.Blob()) && parsed;
  if (!parsed)
    return absl::DataLossError(
        absl::StrCat("attempt ", attempt.number, " is corrupt in the database"));
  attempt.phases.assign(phases.phases().begin(), phases.phases().end());
  return attempt;
}

}  // namespace latentforge::service
