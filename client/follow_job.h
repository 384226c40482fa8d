// Watches a job until it ends, the user interrupts, or time is up.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "client/conversion_client.h"
#include "client/job_watch.h"
#include "client/progress_view.h"

namespace latentforge::client {

struct FollowOptions {
  absl::Duration timeout = absl::InfiniteDuration();
  std::optional<int64_t> after;  // show events behind this sequence
  WatchOptions watch;
  // Asked ten times a second; true ends the wait. Never true when unset.
  std::function<bool()> interrupted;
  // Asked as often; an error ends the wait with it.
  std::function<absl::Status()> check;
  // Asked as often about the job as last known; a line to show, or none.
  std::function<std::optional<std::string>(const v1::Job&)> notice;
  // Every message of the watch, before the view sees it.
  std::function<void(const v1::WatchJobResponse&)> on_message;
};

enum class FollowEnd { kJobEnded, kTimedOut, kInterrupted };

struct FollowResult {
  v1::Job job;           // as last known
  int64_t sequence = 0;  // of the last event seen
  FollowEnd end = FollowEnd::kJobEnded;
};

// How a job that has ended makes its command end: OK, or an error with reason,
// next step and exit status 3 (FAILED) or 5 (CANCELLED). OK for other states.
absl::Status JobOutcome(const v1::Job& job);

// The same for the one job of `latentforge convert`, whose name nobody knows.
absl::Status ConversionOutcome(const v1::Job& job);

// The error that ended the watch, where one did.
absl::StatusOr<FollowResult> FollowJob(ConversionClient& client, Clock& clock,
                                       const std::string& job, ProgressView& view,
                                       const FollowOptions& options);

}  // namespace latentforge::client
