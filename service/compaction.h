// How many events of a job are kept.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "service/job_engine.h"

namespace latentforge::service {

// Removes the oldest events of jobs that have more than the limit, whatever their state, until
// they have a tenth less. Changes of state stay, for whoever reads the database, though no watch
// shows them any more. One thread at a time may Sweep. Borrows the engine.
class Compaction {
 public:
  // `events_per_job` is at least kLeastLongHistory.
  Compaction(JobEngine& engine, int64_t events_per_job)
      : engine_(engine), events_per_job_(events_per_job) {}

  // A bounded part of the work. Does nothing within ten seconds of the last one, unless that
  // left something over.
  absl::Status Sweep();

 private:
  // One transaction's worth.
  absl::Status CompactOne(const EventSpan& span);

  JobEngine& engine_;
  const int64_t events_per_job_;
  absl::Duration next_ = -absl::InfiniteDuration();  // of the monotonic clock
};

}  // namespace latentforge::service
