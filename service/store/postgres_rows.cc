#include "service/store/postgres_rows.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "service/deadlines.h"
#include "service/time_util.h"

namespace latentforge::service::postgres {
namespace {

// What a transition can change.
constexpr char kMutable[] =
    "state, etag, status, last_sequence, update_time, end_time, due_time, queue_deadline_time, "
    "expire_time, lease_epoch, completed_epoch, counted_attempts, attempt_sequence, "
    "attempt_start_time, "
    "lease_expire_time, queue_time, claimable_time, rank_time, progress_event_time, "
    "progress_event_percent";
constexpr int kMutableCount = 20;

constexpr char kAttempt[] =
    "number, lease_epoch, worker, start_time, end_time, outcome, error, phases";

// "$3,$4,$5" for (3, 3).
std::string Parameters(int first, int count) {
  std::string list;
  for (int i = first; i < first + count; ++i) absl::StrAppend(&list, i > first ? "," : "", "$", i);
  return list;
}

void BindOptional(bool present, const google::protobuf::Timestamp& time, PgParams& params) {
  if (present) {
    params.Bind(FromProto(time));
  } else {
    params.BindNull();
  }
}

// Calls `field` for the place to write only when there is a time.
template <typename Field>
void ReadOptional(PgRows& row, Field field) {
  const bool present = !row.NextIsNull();
  const absl::Time time = row.Time();
  if (present) *field() = ToProto(time);
}

// What of the job never changes.
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

void AppendMutable(const JobRecord& record, PgParams& params) {
  params.Bind(int64_t{record.job.status().state()})
      .BindText(record.job.etag())
      .BindBlob(record.job.status().SerializeAsString())
      .Bind(record.job.last_sequence())
      .Bind(FromProto(record.job.update_time()));
  BindOptional(record.job.has_end_time(), record.job.end_time(), params);
  if (const std::optional<Deadline> due = NextDeadline(record); due.has_value()) {
    params.Bind(due->time);
  } else {
    params.BindNull();
  }
  BindOptional(record.job.has_queue_deadline_time(), record.job.queue_deadline_time(), params);
  BindOptional(record.job.has_expire_time(), record.job.expire_time(), params);
  params.Bind(record.lease_epoch)
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

}  // namespace

std::string SelectJobs() {
  return absl::StrCat(
      "SELECT ordinal, version, id, tenant, job, estimate, output_path, needs_cuda, ", kMutable,
      " FROM jobs JOIN job_states USING (ordinal) ");
}

std::string InsertJob() {
  return "INSERT INTO jobs (id, tenant, job, estimate) VALUES ($1, $2, $3, $4) RETURNING ordinal";
}

std::string InsertState() {
  return absl::StrCat("INSERT INTO job_states (version, ordinal, output_path, needs_cuda, ",
                      kMutable, ") VALUES (1, ", Parameters(1, 3 + kMutableCount), ")");
}

std::string UpdateState() {
  return absl::StrCat("UPDATE job_states SET version = version + 1, (", kMutable, ") = (",
                      Parameters(1, kMutableCount), ") WHERE version = $", kMutableCount + 1,
                      " AND ordinal = $", kMutableCount + 2);
}

PgParams BindJob(const JobRecord& record) {
  return PgParams()
      .BindText(record.id)
      .BindText(record.tenant)
      .BindBlob(FixedPart(record.job))
      .BindBlob(record.estimate.SerializeAsString());
}

PgParams BindState(int64_t ordinal, const JobRecord& record) {
  PgParams params;
  params.Bind(ordinal).BindBlob(record.output_path).Bind(int64_t{record.needs_cuda});
  AppendMutable(record, params);
  return params;
}

PgParams BindMutable(const JobRecord& record) {
  PgParams params;
  AppendMutable(record, params);
  return params;
}

absl::StatusOr<JobRecord> ReadJob(PgRows& row) {
  JobRecord record;
  record.ordinal = row.Int();
  record.version = row.Int();
  record.id = row.Text();
  record.tenant = row.Text();
  bool parsed = record.job.ParseFromString(row.Blob());
  record.job.set_tenant(record.tenant);
  parsed = record.estimate.ParseFromString(row.Blob()) && parsed;
  record.output_path = row.Blob();
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
  return absl::StrCat("INSERT INTO attempts (ordinal, ", kAttempt,
                      ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
                      "ON CONFLICT (ordinal, number) DO UPDATE SET (",
                      kAttempt, ") = ($2, $3, $4, $5, $6, $7, $8, $9)");
}

PgParams BindAttempt(int64_t ordinal, const AttemptRecord& attempt) {
  // The timings are one message, for they are read and written together.
  v1::Attempt phases;
  phases.mutable_phases()->Assign(attempt.phases.begin(), attempt.phases.end());
  return PgParams()
      .Bind(ordinal)
      .Bind(int64_t{attempt.number})
      .Bind(attempt.lease_epoch)
      .BindBlob(attempt.worker)
      .Bind(attempt.start_time)
      .Bind(attempt.end_time)
      .Bind(static_cast<int64_t>(attempt.outcome))
      .BindBlob(attempt.error.SerializeAsString())
      .BindBlob(phases.SerializeAsString());
}

absl::StatusOr<AttemptRecord> ReadAttempt(PgRows& row) {
  AttemptRecord attempt;
  attempt.number = static_cast<int32_t>(row.Int());
  attempt.lease_epoch = row.Int();
  attempt.worker = row.Blob();
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

}  // namespace latentforge::service::postgres
