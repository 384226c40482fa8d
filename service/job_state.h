// The life of a job as one pure function: (record, command, now) -> new record
// and events. Nothing else in the server computes a state.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "latentforge/v1/event.pb.h"
#include "service/job_record.h"

namespace latentforge::service {

// Which lease a worker believes that it holds.
struct LeaseRef {
  int32_t attempt = 0;
  int64_t epoch = 0;
  std::string subject;  // who says so; empty: the server itself
};

namespace command {
// A worker takes a queued job.
struct Claim {
  std::string worker;
  absl::Duration lease_duration;
  int32_t gpus = 0;     // that the attempt occupies
  std::string subject;  // whose the lease is; empty: anybody's
};
// A queued job may not run any more, and fails.
struct Reject {
  v1::ConversionError error;
};
// A worker is alive. Of a job that is PAUSING the lease is extended only when the
// worker is stopping for that.
struct Extend {
  LeaseRef lease;
  absl::Duration lease_duration;
  bool pausing = false;
};
// A worker reports events; that also extends its lease, but not while PAUSING.
struct Report {
  LeaseRef lease;
  std::vector<v1::AttemptEvent> events;
  absl::Duration lease_duration;
};
// Ends of an attempt, as its worker tells them.
struct Succeed {
  LeaseRef lease;
  v1::ConversionResult result;
};
struct Fail {
  LeaseRef lease;
  v1::ConversionError error;
};
// Cancelled.
struct Stop {
  LeaseRef lease;
};
// Paused.
struct Halt {
  LeaseRef lease;
};
struct Release {
  LeaseRef lease;
};
// The server restarted: whoever holds the lease gets its full time again.
struct Renew {
  absl::Duration lease_duration;
};
// Time ran out: no effect before lease_expire_time, or NextDeadline.
struct ExpireLease {
  // Nobody was heard under this lease since the server started. On one machine the
  // attempt then ended with the server, and does not count.
  bool unheard = false;
};
struct ExpireDeadline {};
// What users ask for, unless the job's etag is another one than they have seen;
// empty: it does not matter. What is so already changes nothing.
struct Cancel {
  std::string etag;
};
struct Pause {
  std::string etag;
};
struct Resume {
  std::string etag;
};
// Only of a job that failed or was cancelled.
struct Retry {
  std::string etag;
};
}  // namespace command

using Command =
    std::variant<command::Claim, command::Reject, command::Extend, command::Report,
                 command::Succeed, command::Fail, command::Stop, command::Halt, command::Release,
                 command::Renew, command::ExpireLease, command::ExpireDeadline, command::Cancel,
                 command::Pause, command::Resume, command::Retry>;

struct StatePolicy {
  // Pause before a failed attempt is repeated; doubles each time, at most 60 s.
  absl::Duration retry_backoff = absl::Seconds(1);
  // Every worker is on one machine: a full disk is not tried again, for no other
  // worker has more room. And whatever kills the server kills the workers.
  bool one_machine = false;
  // How far a class of priority moves a job in the queue.
  absl::Duration priority_step = absl::Hours(1);
  // How long an ended job stays that names no time itself; zero: for ever.
  absl::Duration default_ttl = absl::ZeroDuration();
};

// What a command does to a job.
struct Transition {
  bool changed = false;  // false: nothing to store; the other fields are as before
  JobRecord next;
  std::vector<v1::JobEvent> events;
  std::optional<AttemptRecord> attempt;  // the attempt that began or ended
};

// ABORTED ETAG_MISMATCH unless `etag` is empty or the job's.
absl::Status CheckEtag(const JobRecord& record, absl::string_view etag);

// PERMISSION_DENIED LEASE_HELD_BY_ANOTHER when this lease is, or was, another subject's; ABORTED
// LEASE_LOST unless the job is held under it.
absl::Status CheckLease(const JobRecord& record, const LeaseRef& lease);

// Whether an error is one of CheckLease's.
bool IsFenced(const absl::Status& status);

// Computes the transition. Pure. Errors: CheckEtag's; CheckLease's for a worker's
// command; FAILED_PRECONDITION JOB_NOT_QUEUED for a Claim or a Reject; INVALID_ARGUMENT
// EVENT_OUT_OF_ORDER for events that do not rise; FAILED_PRECONDITION JOB_TERMINAL or
// JOB_CANCELLING for Pause and Resume of a job that has ended or is about to, JOB_NOT_RETRYABLE for
// Retry of one that did not fail and was not cancelled, or whose deadline is over.
absl::StatusOr<Transition> Decide(const JobRecord& current, const Command& command, absl::Time now,
                                  const StatePolicy& policy = {});

// The first transition: a queued job from a filled-in one. `job` carries name,
// spec, labels and status.max_attempts.
Transition CreateQueued(JobRecord job, absl::Time now, const StatePolicy& policy = {});

}  // namespace latentforge::service
