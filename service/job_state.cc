#include "service/job_state.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "proto/enum_text.h"
#include "service/attempt_events.h"
#include "service/errors.h"
#include "service/job_decider.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

// Sequences of one job's changes of state are never used twice.
std::string EtagAt(int64_t sequence) { return absl::StrCat("\"", sequence, "\""); }

}  // namespace

absl::Status CheckEtag(const JobRecord& record, absl::string_view etag) {
  if (etag.empty() || etag == record.job.etag()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kAborted, "ETAG_MISMATCH",
                   absl::StrCat("job ", record.id, " has the etag ", record.job.etag(), " and is ",
                                ShortEnumName(record.job.status().state()), ", expected the etag ",
                                etag.substr(0, 80)),
                   {{"job", record.id}, {"etag", record.job.etag()}});
}

absl::Time RankTime(const v1::JobSpec& spec, absl::Time now, const StatePolicy& policy) {
  switch (spec.priority()) {
    case v1::PRIORITY_LOW:
      return now + policy.priority_step;
    case v1::PRIORITY_HIGH:
      return now - policy.priority_step;
    default:
      return now;
  }
}

void SetQueueDeadline(absl::Time now, v1::Job& job) {
  if (job.spec().has_queue_deadline())
    *job.mutable_queue_deadline_time() = ToProto(now + FromProto(job.spec().queue_deadline()));
}

v1::ConversionError MakeConversionError(absl::string_view reason, absl::string_view message,
                                        v1::ErrorClass error_class, bool retryable) {
  v1::ConversionError error;
  error.set_reason(std::string(reason));
  error.set_message(std::string(message));
  error.set_error_class(error_class);
  error.set_retryable(retryable);
  return error;
}

Transition Decider::Take() {
  if (transition_.changed) *record().job.mutable_update_time() = ToProto(now_);
  return std::move(transition_);
}

void Decider::SetEnd() {
  v1::Job& job = record().job;
  *job.mutable_end_time() = ToProto(now_);
  const absl::Duration ttl =
      job.spec().has_ttl() ? FromProto(job.spec().ttl()) : policy_.default_ttl;
  if (ttl > absl::ZeroDuration()) *job.mutable_expire_time() = ToProto(now_ + ttl);
}

void Decider::Enqueue() {
  record().rank_time = RankTime(record().job.spec(), now_, policy_);
  Requeue(now_);
}

void Decider::Requeue(absl::Time claimable) {
  record().claimable_time = claimable;
  record().queue_time = now_;
  ChangeState(v1::JOB_STATE_QUEUED);
}

void Decider::ChangeState(v1::JobState state) {
  transition_.changed = true;
  v1::JobStatus& status = this->status();
  status.set_state(state);
  if (!HoldsLease(state) && !IsTerminal(state)) {  // nothing moves
    status.set_tokens_per_second(0);
    status.set_eta_seconds(-1);
  }
  if (IsTerminal(state)) SetEnd();
  record().job.set_etag(EtagAt(record().job.last_sequence() + 1));
  v1::StateChanged& change = *AppendEvent(transition_, now_).mutable_state_changed();
  change.set_state(state);
  change.set_attempt(status.attempt());
  change.set_worker(status.worker());
  change.set_max_attempts(status.max_attempts());
  change.set_etag(record().job.etag());
  if (status.has_error()) *change.mutable_error() = status.error();
  if (status.has_result()) *change.mutable_result() = status.result();
}

absl::StatusOr<Transition> Decide(const JobRecord& current, const Command& command, absl::Time now,
                                  const StatePolicy& policy) {
  Decider decider(current, now, policy);
  LF_RETURN_IF_ERROR(std::visit(decider, command));
  return decider.Take();
}

Transition CreateQueued(JobRecord job, absl::Time now, const StatePolicy& policy) {
  Transition transition;
  transition.changed = true;
  transition.next = std::move(job);
  transition.next.queue_time = now;
  transition.next.claimable_time = now;
  transition.next.rank_time = RankTime(transition.next.job.spec(), now, policy);
  v1::Job& created = transition.next.job;
  *created.mutable_create_time() = ToProto(now);
  *created.mutable_update_time() = ToProto(now);
  if (created.spec().has_deadline())
    *created.mutable_deadline_time() = ToProto(now + FromProto(created.spec().deadline()));
  SetQueueDeadline(now, created);
  created.mutable_status()->set_state(v1::JOB_STATE_QUEUED);
  created.mutable_status()->set_eta_seconds(-1);
  created.set_etag(EtagAt(created.last_sequence() + 1));
  v1::StateChanged& change = *AppendEvent(transition, now).mutable_state_changed();
  change.set_state(v1::JOB_STATE_QUEUED);
  change.set_etag(created.etag());
  return transition;
}

}  // namespace latentforge::service
