// The visitor behind Decide: one method for each command. Included by job_state.cc,
// worker_transitions.cc and user_transitions.cc alone.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "service/job_state.h"

namespace latentforge::service {

// Computes one transition. Used once; borrows the policy.
class Decider {
 public:
  Decider(const JobRecord& current, absl::Time now, const StatePolicy& policy)
      : now_(now), policy_(policy) {
    transition_.next = current;
  }

  // What workers say, and their silence: worker_transitions.cc.
  absl::Status operator()(const command::Claim& claim);
  absl::Status operator()(const command::Reject& reject);
  absl::Status operator()(const command::Extend& extend);
  absl::Status operator()(const command::Report& report);
  absl::Status operator()(const command::Succeed& succeed);
  absl::Status operator()(const command::Fail& fail);
  absl::Status operator()(const command::Stop& stop);
  absl::Status operator()(const command::Halt& halt);
  absl::Status operator()(const command::Release& release);
  absl::Status operator()(const command::Renew& renew);
  absl::Status operator()(const command::ExpireLease& expire);

  // What users ask for, and deadlines: user_transitions.cc.
  absl::Status operator()(const command::ExpireDeadline& expire);
  absl::Status operator()(const command::Cancel& cancel);
  absl::Status operator()(const command::Pause& pause);
  absl::Status operator()(const command::Resume& resume);
  absl::Status operator()(const command::Retry& retry);

  // The result; after the one command.
  Transition Take();

 private:
  JobRecord& record() { return transition_.next; }
  v1::JobStatus& status() { return *transition_.next.job.mutable_status(); }
  v1::JobState state() const { return transition_.next.job.status().state(); }

  // FAILED_PRECONDITION for a job that does not wait to be claimed.
  absl::Status CheckClaimable();
  // A worker that saw no reply tells the end of its attempt again.
  bool IsRepeat(const LeaseRef& lease);
  void SetLease(absl::Duration duration);

  // The attempt that ends makes room for another.
  void DoNotCount();
  // The attempt ended through no fault of the job's: it costs none.
  void EndUncounted(AttemptOutcome outcome);
  // The attempt ended without success: stopped as was asked, queued again, or failed.
  void EndFailed(AttemptOutcome outcome, v1::ConversionError error, bool backoff);
  bool IsHopeless(const v1::ConversionError& error) const;
  absl::Duration Backoff();
  void NoteAttempt(AttemptOutcome outcome, const v1::ConversionError& error = {});

  // FAILED_PRECONDITION for a job that has ended or is being cancelled.
  absl::Status CheckGoesOn();
  // FAILED_PRECONDITION for a job that cannot run again.
  absl::Status CheckRetryable();

  // To the end of the queue: a user asks for it.
  void Enqueue();
  // Back to its place in the queue.
  void Requeue(absl::Time claimable);
  void ChangeState(v1::JobState state);
  // When the job ended, and when it is deleted.
  void SetEnd();

  const absl::Time now_;
  const StatePolicy& policy_;
  Transition transition_;
};

// The place in the queue of a job that joins it now; see Priority in spec.proto.
absl::Time RankTime(const v1::JobSpec& spec, absl::Time now, const StatePolicy& policy);

// The job waits from now on: until when it may.
void SetQueueDeadline(absl::Time now, v1::Job& job);

v1::ConversionError MakeConversionError(absl::string_view reason, absl::string_view message,
                                        v1::ErrorClass error_class, bool retryable);

}  // namespace latentforge::service
