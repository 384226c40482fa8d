// What users and deadlines do to a job; see job_decider.h.
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "proto/enum_text.h"
#include "service/errors.h"
#include "service/job_decider.h"
#include "service/time_util.h"

namespace latentforge::service {

absl::Status Decider::operator()(const command::ExpireDeadline&) {
  if (IsTerminal(state()) || !record().job.has_deadline_time()) return absl::OkStatus();
  const absl::Time deadline = FromProto(record().job.deadline_time());
  if (now_ < deadline) return absl::OkStatus();
  if (HoldsLease(state())) NoteAttempt(AttemptOutcome::kDeadline, "JOB_DEADLINE");
  if (state() == v1::JOB_STATE_CANCELLING) {
    ChangeState(v1::JOB_STATE_CANCELLED);
    return absl::OkStatus();
  }
  *status().mutable_error() = MakeConversionError(
      "JOB_DEADLINE",
      absl::StrCat("the job had not ended by its deadline ",
                   absl::FormatTime(absl::RFC3339_sec, deadline, absl::UTCTimeZone())),
      v1::ERROR_CLASS_RESOURCE, false);
  status().mutable_error()->set_phase(status().phase());
  ChangeState(v1::JOB_STATE_FAILED);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Cancel&) {
  // Why an earlier attempt failed is not why the job ends.
  if (!IsTerminal(state())) status().clear_error();
  if (state() == v1::JOB_STATE_QUEUED || state() == v1::JOB_STATE_PAUSED) {
    ChangeState(v1::JOB_STATE_CANCELLED);
  } else if (state() == v1::JOB_STATE_RUNNING || state() == v1::JOB_STATE_PAUSING) {
    ChangeState(v1::JOB_STATE_CANCELLING);
  }
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Pause&) {
  LF_RETURN_IF_ERROR(CheckGoesOn("paused"));
  if (state() == v1::JOB_STATE_QUEUED) {
    ChangeState(v1::JOB_STATE_PAUSED);
  } else if (state() == v1::JOB_STATE_RUNNING) {
    ChangeState(v1::JOB_STATE_PAUSING);
  }
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Resume&) {
  LF_RETURN_IF_ERROR(CheckGoesOn("resumed"));
  if (state() == v1::JOB_STATE_PAUSED) {
    Requeue(now_);
  } else if (state() == v1::JOB_STATE_PAUSING) {
    // The worker may not have heard of the pause and runs on. If it has, its Halt
    // finds a running job, and queues it.
    ChangeState(v1::JOB_STATE_RUNNING);
  }
  return absl::OkStatus();
}

absl::Status Decider::CheckGoesOn(absl::string_view verb) {
  const bool cancelling = state() == v1::JOB_STATE_CANCELLING;
  if (!cancelling && !IsTerminal(state())) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   cancelling ? "JOB_CANCELLING" : "JOB_TERMINAL",
                   absl::StrCat("job ", record().id, " is ", ShortEnumName(state()),
                                ", expected one that can be ", verb),
                   {{"job", record().id}, {"state", v1::JobState_Name(state())}});
}

}  // namespace latentforge::service
