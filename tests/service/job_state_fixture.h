// Jobs in every state, for tests of the state machine.
#pragma once

#include <utility>

#include "gtest/gtest.h"
#include "service/job_state.h"

namespace latentforge::service {

// Short, for tables of transitions.
inline constexpr v1::JobState Q = v1::JOB_STATE_QUEUED, R = v1::JOB_STATE_RUNNING,
                              C = v1::JOB_STATE_CANCELLING, S = v1::JOB_STATE_SUCCEEDED,
                              F = v1::JOB_STATE_FAILED, X = v1::JOB_STATE_CANCELLED,
                              P = v1::JOB_STATE_PAUSING, H = v1::JOB_STATE_PAUSED;

inline const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);
inline const LeaseRef kLease = {1, 1};
inline const LeaseRef kStale = {1, 0};

inline v1::ConversionError Error(v1::ErrorClass error_class, bool retryable) {
  v1::ConversionError error;
  error.set_reason("DISK_FULL");
  error.set_message("no room");
  error.set_error_class(error_class);
  error.set_retryable(retryable);
  return error;
}

inline Transition MustDecide(const JobRecord& record, const Command& command, absl::Time now = kNow,
                             const StatePolicy& policy = {}) {
  absl::StatusOr<Transition> transition = Decide(record, command, now, policy);
  EXPECT_TRUE(transition.ok()) << transition.status();
  return transition.ok() ? *std::move(transition) : Transition{.next = record};
}

inline JobRecord Queued(int max_attempts = 3) {
  JobRecord record;
  record.id = "j1";
  record.job.set_name("jobs/j1");
  record.job.mutable_status()->set_max_attempts(max_attempts);
  record.job.mutable_spec()->mutable_deadline()->set_seconds(3600);
  return CreateQueued(record, kNow).next;
}

inline JobRecord InState(v1::JobState state, int max_attempts = 3) {
  JobRecord record = Queued(max_attempts);
  if (state == v1::JOB_STATE_QUEUED) return record;
  record = MustDecide(record, command::Claim{"w", absl::Seconds(30)}).next;
  if (state == v1::JOB_STATE_SUCCEEDED)
    return MustDecide(record, command::Succeed{kLease, {}}).next;
  if (state == v1::JOB_STATE_FAILED)
    return MustDecide(record, command::Fail{kLease, Error(v1::ERROR_CLASS_USER, false)}).next;
  if (state == v1::JOB_STATE_RUNNING) return record;
  if (state == v1::JOB_STATE_PAUSING || state == v1::JOB_STATE_PAUSED) {
    record = MustDecide(record, command::Pause{}).next;
    if (state == v1::JOB_STATE_PAUSED) record = MustDecide(record, command::Halt{kLease}).next;
    return record;
  }
  record = MustDecide(record, command::Cancel{}).next;
  if (state == v1::JOB_STATE_CANCELLED) record = MustDecide(record, command::Stop{kLease}).next;
  return record;
}

inline constexpr absl::Duration kLease30 = absl::Seconds(30);

}  // namespace latentforge::service
