// The columns of jobs and attempts that every SQL store has, in one order. A Binder is Statement or
// PgParams, a Row Statement or PgRows: they have the same methods.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "service/deadlines.h"
#include "service/job_record.h"
#include "service/time_util.h"

namespace latentforge::service {

// What a transition can change.
inline constexpr char kMutableColumns[] =
    "state, etag, status, last_sequence, update_time, end_time, due_time, queue_deadline_time, "
    "expire_time, lease_epoch, completed_epoch, counted_attempts, attempt_sequence, "
    "attempt_start_time, lease_expire_time, queue_time, claimable_time, rank_time, "
    "progress_event_time, progress_event_percent, gpus, lease_subject, subject_epoch";

// Of an attempt, but for its job's ordinal.
inline constexpr char kAttemptColumns[] =
    "number, lease_epoch, worker, start_time, end_time, outcome, error, phases";

// How many columns a list names.
int CountColumns(absl::string_view columns);

// What of the job never changes, as bytes; the rest has columns of its own, so that a heartbeat
// does not write the specification again.
std::string FixedPart(const v1::Job& job);

// The timings of an attempt as bytes: they are read and written together.
std::string PhasesToBytes(const AttemptRecord& attempt);
bool ParsePhases(const std::string& bytes, AttemptRecord& attempt);

absl::Status CorruptJobError(absl::string_view id);
absl::Status CorruptAttemptError(int32_t number);

template <typename Binder>
void BindOptional(bool present, const google::protobuf::Timestamp& time, Binder& binder) {
  if (present) {
    binder.Bind(FromProto(time));
  } else {
    binder.BindNull();
  }
}

// In the order of kMutableColumns.
template <typename Binder>
void BindMutableColumns(const JobRecord& record, Binder& binder) {
  const v1::Job& job = record.job;
  binder.Bind(int64_t{job.status().state()})
      .BindText(job.etag())
      .BindBlob(job.status().SerializeAsString())
      .Bind(job.last_sequence())
      .Bind(FromProto(job.update_time()));
  BindOptional(job.has_end_time(), job.end_time(), binder);
  const std::optional<Deadline> due = NextDeadline(record);
  BindOptional(due.has_value(), due ? ToProto(due->time) : google::protobuf::Timestamp(), binder);
  BindOptional(job.has_queue_deadline_time(), job.queue_deadline_time(), binder);
  BindOptional(job.has_expire_time(), job.expire_time(), binder);
  binder.Bind(record.lease_epoch)
      .Bind(record.completed_epoch)
      .Bind(int64_t{record.counted_attempts})
      .Bind(record.attempt_sequence)
      .Bind(record.attempt_start_time)
      .Bind(record.lease_expire_time)
      .Bind(record.queue_time)
      .Bind(record.claimable_time)
      .Bind(record.rank_time)
      .Bind(record.progress_event_time)
      .Bind(record.progress_event_percent)
      .Bind(int64_t{record.gpus})
      .BindText(record.lease_subject)
      .Bind(record.subject_epoch);
}

// Calls `field` for the place to write only when there is a time.
template <typename Row, typename Field>
void ReadOptional(Row& row, Field field) {
  const bool present = !row.NextIsNull();
  const absl::Time time = row.Time();
  if (present) *field() = ToProto(time);
}

// From "ordinal, version, id, tenant, job, estimate, output_path, needs" and kMutableColumns.
// DataLoss when a stored message does not parse.
template <typename Row>
absl::StatusOr<JobRecord> ReadJobColumns(Row& row) {
  JobRecord record;
  v1::Job& job = record.job;
  record.ordinal = row.Int();
  record.version = row.Int();
  record.id = row.Text();
  record.tenant = row.Text();
  bool parsed = job.ParseFromString(row.Blob());
  job.set_tenant(record.tenant);
  parsed = record.estimate.ParseFromString(row.Blob()) && parsed;
  record.output_path = row.Blob();
  record.needs = row.Text();
  row.Int();  // the state is there for the indexes
  job.set_etag(row.Text());
  parsed = job.mutable_status()->ParseFromString(row.Blob()) && parsed;
  job.set_last_sequence(row.Int());
  *job.mutable_update_time() = ToProto(row.Time());
  ReadOptional(row, [&] { return job.mutable_end_time(); });
  row.Int();  // due_time follows from the rest
  ReadOptional(row, [&] { return job.mutable_queue_deadline_time(); });
  ReadOptional(row, [&] { return job.mutable_expire_time(); });
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
  record.gpus = static_cast<int32_t>(row.Int());
  record.lease_subject = row.Text();
  record.subject_epoch = row.Int();
  if (!parsed) return CorruptJobError(record.id);
  return record;
}

// In the order of kAttemptColumns.
template <typename Binder>
void BindAttemptColumns(const AttemptRecord& attempt, Binder& binder) {
  binder.Bind(int64_t{attempt.number})
      .Bind(attempt.lease_epoch)
      .BindOutsideText(attempt.worker)
      .Bind(attempt.start_time)
      .Bind(attempt.end_time)
      .Bind(static_cast<int64_t>(attempt.outcome))
      .BindBlob(attempt.error.SerializeAsString())
      .BindBlob(PhasesToBytes(attempt));
}

// From kAttemptColumns. DataLoss as above.
template <typename Row>
absl::StatusOr<AttemptRecord> ReadAttemptColumns(Row& row) {
  AttemptRecord attempt;
  attempt.number = static_cast<int32_t>(row.Int());
  attempt.lease_epoch = row.Int();
  attempt.worker = row.Blob();
  attempt.start_time = row.Time();
  attempt.end_time = row.Time();
  attempt.outcome = static_cast<AttemptOutcome>(row.Int());
  bool parsed = attempt.error.ParseFromString(row.Blob());
  parsed = ParsePhases(row.Blob(), attempt) && parsed;
  if (!parsed) return CorruptAttemptError(attempt.number);
  return attempt;
}

}  // namespace latentforge::service
