// What workers do to a job; see job_decider.h.
#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "proto/enum_text.h"
#include "service/attempt_events.h"
#include "service/errors.h"
#include "service/job_decider.h"

namespace latentforge::service {
namespace {

constexpr size_t kMaxMessageBytes = 8192;
constexpr absl::Duration kMaxBackoff = absl::Seconds(60);

// Reasons become labels of metrics and are parsed by programs.
std::string SaneReason(const std::string& reason) {
  const bool fine = !reason.empty() && reason.size() <= 63 && absl::ascii_isupper(reason[0]) &&
                    std::all_of(reason.begin(), reason.end(), [](unsigned char c) {
                      return absl::ascii_isupper(c) || absl::ascii_isdigit(c) || c == '_';
                    });
  return fine ? reason : "UNKNOWN";
}

v1::ConversionError Sane(v1::ConversionError error) {
  error.set_reason(SaneReason(error.reason()));
  error.set_message(Truncated(error.message(), kMaxMessageBytes));
  if (error.error_class() < v1::ERROR_CLASS_USER || error.error_class() > v1::ERROR_CLASS_RESOURCE)
    error.set_error_class(v1::ERROR_CLASS_SYSTEM);
  return error;
}

bool Matches(const JobRecord& record, const LeaseRef& lease) {
  return lease.epoch == record.lease_epoch && lease.attempt == record.job.status().attempt();
}

// Whether who speaks of the job's lease may. A lease from before subjects were kept, or of a server
// that does not keep them, is anybody's.
bool IsHolder(const JobRecord& record, const LeaseRef& lease) {
  const bool known = record.subject_epoch == record.lease_epoch && !record.lease_subject.empty();
  return !known || lease.subject.empty() || lease.subject == record.lease_subject;
}

}  // namespace

absl::Status CheckLease(const JobRecord& record, const LeaseRef& lease) {
  const v1::JobStatus& status = record.job.status();
  if (Matches(record, lease) && !IsHolder(record, lease)) {
    return MakeError(absl::StatusCode::kPermissionDenied, kLeaseHeldByAnother,
                     absl::StrCat("the lease of attempt ", lease.attempt, ", epoch ", lease.epoch,
                                  " of job ", record.id, " was not acquired by ", lease.subject),
                     {{"job", record.id},
                      {"attempt", absl::StrCat(lease.attempt)},
                      {"lease_epoch", absl::StrCat(lease.epoch)},
                      {"subject", lease.subject}});
  }
  if (HoldsLease(status.state()) && Matches(record, lease)) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kAborted, kLeaseLost,
      absl::StrCat("the lease of attempt ", lease.attempt, ", epoch ", lease.epoch, " of job ",
                   record.id, " is over: the job is ", ShortEnumName(status.state()),
                   " in attempt ", status.attempt(), ", epoch ", record.lease_epoch),
      {{"job", record.id},
       {"attempt", absl::StrCat(lease.attempt)},
       {"lease_epoch", absl::StrCat(lease.epoch)},
       {"current_lease_epoch", absl::StrCat(record.lease_epoch)}});
}

bool IsFenced(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == kLeaseLost || reason == kLeaseHeldByAnother;
}

absl::Status Decider::operator()(const command::Claim& claim) {
  LF_RETURN_IF_ERROR(CheckClaimable());
  v1::JobStatus& status = this->status();
  status.set_attempt(status.attempt() + 1);
  status.set_worker(claim.worker);
  status.set_phase(v1::PHASE_UNSPECIFIED);
  status.set_percent(0);
  status.set_eta_seconds(-1);
  status.set_tokens_per_second(0);
  status.clear_detail();
  status.clear_phases();
  record().job.clear_queue_deadline_time();
  record().lease_epoch += 1;
  record().lease_subject = claim.subject;
  record().subject_epoch = record().lease_epoch;
  record().counted_attempts += 1;
  record().gpus = claim.gpus;
  record().attempt_sequence = 0;
  record().attempt_start_time = now_;
  record().progress_event_time = absl::UnixEpoch();
  record().progress_event_percent = 0;
  SetLease(claim.lease_duration);
  ChangeState(v1::JOB_STATE_RUNNING);
  NoteAttempt(AttemptOutcome::kRunning);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Reject& reject) {
  LF_RETURN_IF_ERROR(CheckClaimable());
  *status().mutable_error() = Sane(reject.error);
  ChangeState(v1::JOB_STATE_FAILED);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Extend& extend) {
  LF_RETURN_IF_ERROR(CheckLease(record(), extend.lease));
  // A worker that does not know of pauses would run on: its lease ends, and with it
  // the attempt.
  if (state() != v1::JOB_STATE_PAUSING || extend.pausing) SetLease(extend.lease_duration);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Report& report) {
  LF_RETURN_IF_ERROR(CheckLease(record(), report.lease));
  if (state() != v1::JOB_STATE_PAUSING) SetLease(report.lease_duration);
  const int phases_before = status().phases_size();
  LF_RETURN_IF_ERROR(ApplyAttemptEvents(report.events, now_, transition_));
  if (status().phases_size() > phases_before) NoteAttempt(AttemptOutcome::kRunning);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Succeed& succeed) {
  if (IsRepeat(succeed.lease)) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckLease(record(), succeed.lease));
  v1::JobStatus& status = this->status();
  status.clear_error();
  *status.mutable_result() = succeed.result;
  status.set_percent(100);
  status.set_eta_seconds(0);
  record().completed_epoch = record().lease_epoch;
  NoteAttempt(AttemptOutcome::kSucceeded);
  ChangeState(v1::JOB_STATE_SUCCEEDED);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Fail& fail) {
  if (IsRepeat(fail.lease)) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckLease(record(), fail.lease));
  record().completed_epoch = record().lease_epoch;
  EndFailed(AttemptOutcome::kFailed, Sane(fail.error), /*backoff=*/true);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Stop& stop) {
  if (IsRepeat(stop.lease)) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckLease(record(), stop.lease));
  record().completed_epoch = record().lease_epoch;
  if (state() == v1::JOB_STATE_CANCELLING) {
    NoteAttempt(AttemptOutcome::kCancelled);
    ChangeState(v1::JOB_STATE_CANCELLED);
    return absl::OkStatus();
  }
  // Stopped though nobody asked: something killed the compute process.
  EndFailed(AttemptOutcome::kCancelled,
            MakeConversionError("ATTEMPT_STOPPED",
                                absl::StrCat("worker ", status().worker(),
                                             " stopped the attempt without being asked to"),
                                v1::ERROR_CLASS_SYSTEM, true),
            /*backoff=*/true);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Halt& halt) {
  if (IsRepeat(halt.lease)) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckLease(record(), halt.lease));
  record().completed_epoch = record().lease_epoch;
  EndUncounted(AttemptOutcome::kPaused);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Release& release) {
  if (IsRepeat(release.lease)) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckLease(record(), release.lease));
  record().completed_epoch = record().lease_epoch;
  EndUncounted(AttemptOutcome::kReleased);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::Renew& renew) {
  if (HoldsLease(state())) SetLease(renew.lease_duration);
  return absl::OkStatus();
}

absl::Status Decider::operator()(const command::ExpireLease& expire) {
  if (!HoldsLease(state()) || now_ < record().lease_expire_time) return absl::OkStatus();
  if (state() == v1::JOB_STATE_PAUSING) {
    EndUncounted(AttemptOutcome::kLeaseExpired);
    return absl::OkStatus();
  }
  if (expire.unheard && policy_.one_machine) DoNotCount();
  // No backoff: the lease itself was the wait.
  EndFailed(AttemptOutcome::kLeaseExpired,
            MakeConversionError("WORKER_LOST",
                                absl::StrCat("worker ", status().worker(),
                                             " sent no heartbeat before its lease ended"),
                                v1::ERROR_CLASS_SYSTEM, true),
            /*backoff=*/false);
  return absl::OkStatus();
}

absl::Status Decider::CheckClaimable() {
  if (state() == v1::JOB_STATE_QUEUED && now_ >= record().claimable_time) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "JOB_NOT_QUEUED",
                   absl::StrCat("job ", record().id, " is ", ShortEnumName(state()),
                                ", expected one that waits to be claimed"),
                   {{"job", record().id}});
}

bool Decider::IsRepeat(const LeaseRef& lease) {
  return !HoldsLease(state()) && Matches(record(), lease) && IsHolder(record(), lease) &&
         record().completed_epoch == lease.epoch;
}

void Decider::SetLease(absl::Duration duration) {
  record().lease_expire_time = now_ + duration;
  transition_.changed = true;
}

void Decider::DoNotCount() {
  record().counted_attempts -= 1;
  status().set_max_attempts(status().max_attempts() + 1);
}

void Decider::EndUncounted(AttemptOutcome outcome) {
  DoNotCount();
  NoteAttempt(outcome);
  if (state() == v1::JOB_STATE_CANCELLING) {
    ChangeState(v1::JOB_STATE_CANCELLED);
  } else if (state() == v1::JOB_STATE_PAUSING) {
    ChangeState(v1::JOB_STATE_PAUSED);
  } else {
    Requeue(now_);
  }
}

void Decider::EndFailed(AttemptOutcome outcome, v1::ConversionError error, bool backoff) {
  if (error.phase() == v1::PHASE_UNSPECIFIED) error.set_phase(status().phase());
  NoteAttempt(outcome, error);
  if (state() == v1::JOB_STATE_CANCELLING) {
    ChangeState(v1::JOB_STATE_CANCELLED);
    return;
  }
  const bool again = error.retryable() && !IsHopeless(error) &&
                     error.error_class() != v1::ERROR_CLASS_USER &&
                     status().attempt() < status().max_attempts();
  *status().mutable_error() = std::move(error);
  if (!again) {
    ChangeState(v1::JOB_STATE_FAILED);
  } else if (state() == v1::JOB_STATE_PAUSING) {
    ChangeState(v1::JOB_STATE_PAUSED);
  } else {
    Requeue(now_ + (backoff ? Backoff() : absl::ZeroDuration()));
  }
}

bool Decider::IsHopeless(const v1::ConversionError& error) const {
  return policy_.one_machine &&
         (error.reason() == "SCRATCH_FULL" || error.reason() == "OUTPUT_DISK_FULL");
}

absl::Duration Decider::Backoff() {
  const int doublings = std::clamp(record().counted_attempts - 1, 0, 10);
  return std::min(policy_.retry_backoff * (1 << doublings), kMaxBackoff);
}

void Decider::NoteAttempt(AttemptOutcome outcome, const v1::ConversionError& error) {
  AttemptRecord attempt;
  attempt.number = status().attempt();
  attempt.lease_epoch = record().lease_epoch;
  attempt.worker = status().worker();
  attempt.start_time = record().attempt_start_time;
  attempt.outcome = outcome;
  if (outcome != AttemptOutcome::kRunning) attempt.end_time = now_;
  attempt.error = error;
  attempt.phases.assign(status().phases().begin(), status().phases().end());
  transition_.attempt = std::move(attempt);
}

}  // namespace latentforge::service
