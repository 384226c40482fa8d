// What users and deadlines do to a job; see job_decider.h.
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "proto/enum_text.h"
#include "service/deadlines.h"
#include "service/errors.h"
#include "service/job_decider.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

std::string TimeText(absl::Time time) {
  return absl::FormatTime(absl::RFC3339_sec, time, absl::UTCTimeZone());
}

v1::ConversionError ErrorOf(const Deadline& deadline, const v1::Job& job) {
  v1::ConversionError error;
  switch (deadline.kind) {
    case Deadline::Kind::kJob:
      error = MakeConversionError(
          "JOB_DEADLINE",
          absl::StrCat("the job had not ended by its deadline ", TimeText(deadline.time)),
          v1::ERROR_CLASS_RESOURCE, false);
      break;
    case Deadline::Kind::kQueue:
      error = MakeConversionError(
          "QUEUE_DEADLINE",
          absl::StrCat("no worker had taken the job by ", TimeText(deadline.time)),
          v1::ERROR_CLASS_RESOURCE, false);
      break;
    case Deadline::Kind::kRun:
      // Another attempt would take as long.
      error = MakeConversionError(
          "JOB_DEADLINE",
          absl::StrCat("attempt ", job.status().attempt(), " had not ended after ",
                       absl::FormatDuration(FromProto(job.spec().run_deadline())),
                       ", its run deadline"),
          v1::ERROR_CLASS_USER, false);
      break;
  }
  error.set_phase(job.status().phase());
  return error;
}

}  // namespace

absl::Status Decider::operator()(const command::ExpireDeadline&) {
  const std::optional<Deadline> deadline = NextDeadline(record());
  if (!deadline.has_value() || now_ < deadline->time) return absl::OkStatus();
  v1::ConversionError error = ErrorOf(*deadline, record().job);
  if (HoldsLease(state())) NoteAttempt(AttemptOutcome::kDeadline, error);
  if (state() == v1::JOB_STATE_CANCELLING) {
    ChangeState(v1::JOB_STATE_CANCELLED);
    return absl::OkStatus();
  }
  *status().mutable_error() = std::move(error);
  ChangeState(v1::JOB_STATE_FAILED);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Cancel& cancel) {
  LF_RETURN_IF_ERROR(CheckEtag(record(), cancel.etag));
  // Why an earlier attempt failed is not why the job ends.
  if (!IsTerminal(state())) status().clear_error();
  if (state() == v1::JOB_STATE_QUEUED || state() == v1::JOB_STATE_PAUSED) {
    ChangeState(v1::JOB_STATE_CANCELLED);
  } else if (state() == v1::JOB_STATE_RUNNING || state() == v1::JOB_STATE_PAUSING) {
    ChangeState(v1::JOB_STATE_CANCELLING);
  }
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Pause& pause) {
  LF_RETURN_IF_ERROR(CheckEtag(record(), pause.etag));
  LF_RETURN_IF_ERROR(CheckGoesOn());
  if (state() == v1::JOB_STATE_QUEUED) {
    ChangeState(v1::JOB_STATE_PAUSED);
  } else if (state() == v1::JOB_STATE_RUNNING) {
    ChangeState(v1::JOB_STATE_PAUSING);
  }
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Resume& resume) {
  LF_RETURN_IF_ERROR(CheckEtag(record(), resume.etag));
  LF_RETURN_IF_ERROR(CheckGoesOn());
  if (state() == v1::JOB_STATE_PAUSED) {
    Enqueue();
  } else if (state() == v1::JOB_STATE_PAUSING) {
    // The worker may not have heard of the pause and runs on. If it has, its Halt
    // finds a running job, and queues it.
    ChangeState(v1::JOB_STATE_RUNNING);
  }
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Retry& retry) {
  LF_RETURN_IF_ERROR(CheckEtag(record(), retry.etag));
  LF_RETURN_IF_ERROR(CheckRetryable());
  v1::JobStatus& status = this->status();
  // Each attempt that does not count has raised max_attempts by one.
  const int32_t uncounted = status.attempt() - record().counted_attempts;
  const int32_t allowance = status.max_attempts() - uncounted;
  status.set_max_attempts(status.attempt() + allowance);
  record().counted_attempts = 0;
  status.clear_error();
  status.set_percent(0);
  status.set_phase(v1::PHASE_UNSPECIFIED);
  status.clear_detail();
  record().job.clear_end_time();
  record().job.clear_expire_time();
  SetQueueDeadline(now_, record().job);
  Enqueue();
  return absl::OkStatus();
}

absl::Status Decider::CheckRetryable() {
  const bool ended = state() == v1::JOB_STATE_FAILED || state() == v1::JOB_STATE_CANCELLED;
  const v1::Job& job = record().job;
  const bool late = job.has_deadline_time() && now_ >= FromProto(job.deadline_time());
  if (ended && !late) return absl::OkStatus();
  const std::string problem =
      ended ? absl::StrCat(" had the deadline ", TimeText(FromProto(job.deadline_time())),
                           ", expected one that is not over")
            : absl::StrCat(" is ", ShortEnumName(state()),
                           ", expected one that failed or was cancelled");
  return MakeError(absl::StatusCode::kFailedPrecondition, "JOB_NOT_RETRYABLE",
                   absl::StrCat("job ", record().id, problem),
                   {{"job", record().id}, {"state", v1::JobState_Name(state())}});
}

absl::Status Decider::CheckGoesOn() {
  const bool cancelling = state() == v1::JOB_STATE_CANCELLING;
  if (!cancelling && !IsTerminal(state())) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   cancelling ? "JOB_CANCELLING" : "JOB_TERMINAL",
                   absl::StrCat("job ", record().id, " is ", ShortEnumName(state()),
                                ", expected one that is queued, running, pausing or paused"),
                   {{"job", record().id}, {"state", v1::JobState_Name(state())}});
}

}  // namespace latentforge::service
