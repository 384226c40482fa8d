// The loads of scripts/bench service. Each gives what it measured as one JSON object.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "base/json.h"
#include "bench/service/target.h"

namespace latentforge::bench {

// Durable submits: jobs a second and the time of each answer.
Json SubmitLoad(Target& target, int64_t jobs, int concurrency);

// Submits a job each `interval` while `workers` wait: from the submitter's answer to the worker's.
// A worker may have its answer first; that counts as 0.
Json DispatchLoad(Target& target, int64_t jobs, int workers, absl::Duration interval);

// Asks for the first page of queued jobs, and for one in the middle, again and again.
Json ListLoad(Target& target, int64_t calls);

// `watches` on `jobs` running jobs whose workers report `events` events each, one a job each
// `interval`: from the time that the server gave an event to its arrival at each watcher. Both
// must run on one machine.
struct WatchOptions {
  int64_t watches = 1000;
  int64_t jobs = 50;
  int64_t events = 20;
  absl::Duration interval = absl::Seconds(1);
};
Json WatchLoad(Target& target, const WatchOptions& options);

}  // namespace latentforge::bench
