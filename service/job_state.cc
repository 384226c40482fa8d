#include "service/job_state.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "proto/enum_text.h"
#include "service/attempt_events.h"
#include "service/errors.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

constexpr size_t kMaxMessageBytes = 8192;
constexpr absl::Duration kMaxBackoff = absl::Seconds(60);

v1::ConversionError MakeConversionError(absl::string_view reason, absl::string_view message,
                                        v1::ErrorClass error_class, bool retryable) {
  v1::ConversionError error;
  error.set_reason(std::string(reason));
  error.set_message(std::string(message));
  error.set_error_class(error_class);
  error.set_retryable(retryable);
  return error;
}

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

// Computes one transition; the visitor of Decide.
class Decider {
 public:
  Decider(const JobRecord& current, absl::Time now, const StatePolicy& policy)
      : now_(now), policy_(policy) {
    transition_.next = current;
  }

  absl::Status operator()(const command::Claim& claim) {
    if (state() != v1::JOB_STATE_QUEUED || now_ < record().claimable_time) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "JOB_NOT_QUEUED",
                       absl::StrCat("job ", record().id, " is ", ShortEnumName(state()),
                                    ", expected one that waits to be claimed"),
                       {{"job", record().id}});
    }
    v1::JobStatus& status = this->status();
    status.set_attempt(status.attempt() + 1);
    status.set_worker(claim.worker);
    status.set_phase(v1::PHASE_UNSPECIFIED);
    status.set_percent(0);
    status.set_eta_seconds(-1);
    status.set_tokens_per_second(0);
    status.clear_detail();
    record().lease_epoch += 1;
    record().counted_attempts += 1;
    record().attempt_sequence = 0;
    record().attempt_start_time = now_;
    record().progress_event_time = absl::UnixEpoch();
    record().progress_event_percent = 0;
    SetLease(claim.lease_duration);
    ChangeState(v1::JOB_STATE_RUNNING);
    NoteAttempt(AttemptOutcome::kRunning);
    return absl::OkStatus();
  }

  absl::Status operator()(const command::Extend& extend) {
    LF_RETURN_IF_ERROR(CheckLease(extend.lease));
    SetLease(extend.lease_duration);
    return absl::OkStatus();
  }

  absl::Status operator()(const command::Report& report) {
    LF_RETURN_IF_ERROR(CheckLease(report.lease));
    SetLease(report.lease_duration);
    return ApplyAttemptEvents(report.events, now_, policy_, transition_);
  }

  absl::Status operator()(const command::Succeed& succeed) {
    if (IsRepeat(succeed.lease)) return absl::OkStatus();
    LF_RETURN_IF_ERROR(CheckLease(succeed.lease));
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

  absl::Status operator()(const command::Fail& fail) {
    if (IsRepeat(fail.lease)) return absl::OkStatus();
    LF_RETURN_IF_ERROR(CheckLease(fail.lease));
    record().completed_epoch = record().lease_epoch;
    EndFailed(AttemptOutcome::kFailed, Sane(fail.error), /*backoff=*/true);
    return absl::OkStatus();
  }

  absl::Status operator()(const command::Stop& stop) {
    if (IsRepeat(stop.lease)) return absl::OkStatus();
    LF_RETURN_IF_ERROR(CheckLease(stop.lease));
    record().completed_epoch = record().lease_epoch;
    // Stopped though nobody asked: something killed the compute process.
    EndFailed(AttemptOutcome::kCancelled,
              MakeConversionError("ATTEMPT_STOPPED",
                                  absl::StrCat("worker ", status().worker(),
                                               " stopped the attempt without being asked to"),
                                  v1::ERROR_CLASS_SYSTEM, true),
              /*backoff=*/true);
    return absl::OkStatus();
  }

  absl::Status operator()(const command::Release& release) {
    if (IsRepeat(release.lease)) return absl::OkStatus();
    LF_RETURN_IF_ERROR(CheckLease(release.lease));
    record().completed_epoch = record().lease_epoch;
    DoNotCount();
    NoteAttempt(AttemptOutcome::kReleased);
    if (state() == v1::JOB_STATE_CANCELLING) {
      ChangeState(v1::JOB_STATE_CANCELLED);
    } else {
      record().claimable_time = now_;
      ChangeState(v1::JOB_STATE_QUEUED);
    }
    return absl::OkStatus();
  }

  absl::Status operator()(const command::Renew& renew) {
    if (HoldsLease(state())) SetLease(renew.lease_duration);
    return absl::OkStatus();
  }

  absl::Status operator()(const command::ExpireLease& expire) {
    if (!HoldsLease(state()) || now_ < record().lease_expire_time) return absl::OkStatus();
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

  absl::Status operator()(const command::ExpireDeadline&) {
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

  absl::Status operator()(const command::Cancel&) {
    // Why an earlier attempt failed is not why the job ends.
    if (!IsTerminal(state())) status().clear_error();
    if (state() == v1::JOB_STATE_QUEUED) ChangeState(v1::JOB_STATE_CANCELLED);
    if (state() == v1::JOB_STATE_RUNNING) ChangeState(v1::JOB_STATE_CANCELLING);
    return absl::OkStatus();
  }

  Transition Take() {
    if (transition_.changed) *record().job.mutable_update_time() = ToProto(now_);
    return std::move(transition_);
  }

 private:
  JobRecord& record() { return transition_.next; }
  v1::JobStatus& status() { return *transition_.next.job.mutable_status(); }
  v1::JobState state() const { return transition_.next.job.status().state(); }

  bool Matches(const LeaseRef& lease) {
    return lease.epoch == record().lease_epoch && lease.attempt == status().attempt();
  }

  // A worker that saw no reply tells the end of its attempt again.
  bool IsRepeat(const LeaseRef& lease) {
    return !HoldsLease(state()) && Matches(lease) && record().completed_epoch == lease.epoch;
  }

  absl::Status CheckLease(const LeaseRef& lease) {
    if (HoldsLease(state()) && Matches(lease)) return absl::OkStatus();
    return MakeError(
        absl::StatusCode::kAborted, kLeaseLost,
        absl::StrCat("the lease of attempt ", lease.attempt, ", epoch ", lease.epoch, " of job ",
                     record().id, " is over: the job is ", ShortEnumName(state()), " in attempt ",
                     status().attempt(), ", epoch ", record().lease_epoch),
        {{"job", record().id},
         {"attempt", absl::StrCat(lease.attempt)},
         {"lease_epoch", absl::StrCat(lease.epoch)},
         {"current_lease_epoch", absl::StrCat(record().lease_epoch)}});
  }

  void SetLease(absl::Duration duration) {
    record().lease_expire_time = now_ + duration;
    transition_.changed = true;
  }

  // The attempt that ends makes room for another.
  void DoNotCount() {
    record().counted_attempts -= 1;
    status().set_max_attempts(status().max_attempts() + 1);
  }

  // The attempt ended without success: cancelled, queued again, or failed.
  void EndFailed(AttemptOutcome outcome, v1::ConversionError error, bool backoff) {
    const bool cancelling = state() == v1::JOB_STATE_CANCELLING;
    if (cancelling && outcome == AttemptOutcome::kCancelled) {
      NoteAttempt(outcome);
      ChangeState(v1::JOB_STATE_CANCELLED);
      return;
    }
    if (error.phase() == v1::PHASE_UNSPECIFIED) error.set_phase(status().phase());
    NoteAttempt(outcome, error.reason());
    const bool again = error.retryable() && !IsHopeless(error) &&
                       error.error_class() != v1::ERROR_CLASS_USER &&
                       status().attempt() < status().max_attempts();
    if (cancelling) {
      ChangeState(v1::JOB_STATE_CANCELLED);
      return;
    }
    *status().mutable_error() = std::move(error);
    if (again) {
      record().claimable_time = now_ + (backoff ? Backoff() : absl::ZeroDuration());
      ChangeState(v1::JOB_STATE_QUEUED);
    } else {
      ChangeState(v1::JOB_STATE_FAILED);
    }
  }

  bool IsHopeless(const v1::ConversionError& error) const {
    return policy_.one_machine &&
           (error.reason() == "SCRATCH_FULL" || error.reason() == "OUTPUT_DISK_FULL");
  }

  absl::Duration Backoff() {
    const int doublings = std::clamp(record().counted_attempts - 1, 0, 10);
    return std::min(policy_.retry_backoff * (1 << doublings), kMaxBackoff);
  }

  void NoteAttempt(AttemptOutcome outcome, absl::string_view reason = "") {
    AttemptRecord attempt;
    attempt.number = status().attempt();
    attempt.lease_epoch = record().lease_epoch;
    attempt.worker = status().worker();
    attempt.start_time = record().attempt_start_time;
    attempt.outcome = outcome;
    if (outcome != AttemptOutcome::kRunning) attempt.end_time = now_;
    attempt.reason = std::string(reason);
    transition_.attempt = std::move(attempt);
  }

  void ChangeState(v1::JobState state) {
    transition_.changed = true;
    v1::JobStatus& status = this->status();
    status.set_state(state);
    if (state == v1::JOB_STATE_QUEUED) record().queue_time = now_;
    if (IsTerminal(state)) *record().job.mutable_end_time() = ToProto(now_);
    v1::StateChanged& change = *AppendEvent(transition_, now_).mutable_state_changed();
    change.set_state(state);
    change.set_attempt(status.attempt());
    change.set_worker(status.worker());
    change.set_max_attempts(status.max_attempts());
    if (status.has_error()) *change.mutable_error() = status.error();
    if (status.has_result()) *change.mutable_result() = status.result();
  }

  const absl::Time now_;
  const StatePolicy& policy_;
  Transition transition_;
};

}  // namespace

absl::StatusOr<Transition> Decide(const JobRecord& current, const Command& command, absl::Time now,
                                  const StatePolicy& policy) {
  Decider decider(current, now, policy);
  LF_RETURN_IF_ERROR(std::visit(decider, command));
  return decider.Take();
}

Transition CreateQueued(JobRecord job, absl::Time now) {
  Transition transition;
  transition.changed = true;
  transition.next = std::move(job);
  transition.next.queue_time = now;
  transition.next.claimable_time = now;
  v1::Job& created = transition.next.job;
  *created.mutable_create_time() = ToProto(now);
  *created.mutable_update_time() = ToProto(now);
  if (created.spec().has_deadline())
    *created.mutable_deadline_time() = ToProto(now + FromProto(created.spec().deadline()));
  created.mutable_status()->set_state(v1::JOB_STATE_QUEUED);
  created.mutable_status()->set_eta_seconds(-1);
  AppendEvent(transition, now).mutable_state_changed()->set_state(v1::JOB_STATE_QUEUED);
  return transition;
}

}  // namespace latentforge::service
