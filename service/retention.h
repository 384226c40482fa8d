// How long what has ended stays.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "service/job_engine.h"

namespace latentforge::service {

// Deletes jobs whose time to live is over, and forgets deleted ones. One thread at a
// time may Sweep. Borrows the engine.
class Retention {
 public:
  // A request_id stays taken for at least `tombstone_ttl` after its job was deleted.
  Retention(JobEngine& engine, absl::Duration tombstone_ttl)
      : engine_(engine), tombstone_ttl_(tombstone_ttl) {}

  // One bounded batch of each. Does nothing within a second of the last one, unless that left jobs
  // over: it is called whenever a job is queued.
  absl::Status Sweep();

 private:
  absl::Status DeleteExpired();

  JobEngine& engine_;
  const absl::Duration tombstone_ttl_;
  absl::Duration next_ = -absl::InfiniteDuration();  // of the monotonic clock
};

}  // namespace latentforge::service
