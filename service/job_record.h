// What the server keeps of one job.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "latentforge/v1/job.pb.h"
#include "latentforge/v1/job_service.pb.h"

namespace latentforge::service {

// A job with the server's own fields. A plain value.
struct JobRecord {
  std::string id;
  std::string tenant;   // fixed at creation; job.tenant repeats it
  int64_t ordinal = 0;  // order of creation; the store assigns it
  int64_t version = 0;  // rises with every commit; guards against lost updates
  v1::Job job;          // what clients see
  v1::Estimate estimate;
  std::string output_path;  // resolved; one active job at most may have it
  std::string needs;        // NeedsKey of what it needs of a worker

  int64_t lease_epoch = 0;       // of the running or last lease
  std::string lease_subject;     // who acquired it
  int64_t subject_epoch = 0;     // whose lease_subject is; another one's holder is not known
  int64_t completed_epoch = 0;   // of the last lease that its worker ended
  int32_t counted_attempts = 0;  // attempts that count towards max_attempts
  int64_t attempt_sequence = 0;  // last event of the attempt that was recorded
  absl::Time attempt_start_time = absl::UnixEpoch();
  absl::Time lease_expire_time = absl::UnixEpoch();
  absl::Time queue_time = absl::UnixEpoch();           // when it was queued last
  absl::Time claimable_time = absl::UnixEpoch();       // not to be claimed before (backoff)
  absl::Time rank_time = absl::UnixEpoch();            // the earliest is claimed first
  absl::Time progress_event_time = absl::UnixEpoch();  // of the last Progress event kept
  double progress_event_percent = 0;
  int32_t gpus = 0;  // that the running or last attempt occupies
};

// How one attempt ended.
enum class AttemptOutcome {
  kRunning = 0,
  kSucceeded = 1,
  kFailed = 2,
  kCancelled = 3,
  kReleased = 4,
  kLeaseExpired = 5,
  kDeadline = 6,
  kPaused = 7,
};

// One execution of a job by one worker. A plain value.
struct AttemptRecord {
  int32_t number = 0;
  int64_t lease_epoch = 0;
  std::string worker;
  absl::Time start_time = absl::UnixEpoch();
  absl::Time end_time = absl::UnixEpoch();
  AttemptOutcome outcome = AttemptOutcome::kRunning;
  v1::ConversionError error;            // where there is one
  std::vector<v1::PhaseTiming> phases;  // that it finished
};

inline bool IsTerminal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

inline bool HoldsLease(v1::JobState state) {
  return state == v1::JOB_STATE_RUNNING || state == v1::JOB_STATE_CANCELLING ||
         state == v1::JOB_STATE_PAUSING;
}

}  // namespace latentforge::service
