// A job as a watcher knows it: the snapshot with every later event applied.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "latentforge/v1/job.pb.h"
#include "latentforge/v1/job_service.pb.h"

namespace latentforge::client {

bool IsTerminal(v1::JobState state);

// Pure bookkeeping; not safe for concurrent use.
class JobTracker {
 public:
  enum class Change { kNothing, kSnapshot, kEvent };

  // `after`: the watch was opened with this from_sequence, so events that the
  // snapshot includes are sent again.
  explicit JobTracker(std::optional<int64_t> after = std::nullopt) : after_(after) {}

  // Takes one message of a watch. Events that were seen already (a repeat after a
  // reconnect) and bookmarks are kNothing. DataLoss when a sequence is missing.
  absl::StatusOr<Change> Apply(const v1::WatchJobResponse& message);

  // The next message begins a new watch, without `after`: what was missed stays so.
  void Restart() {
    after_.reset();
    has_snapshot_ = false;
  }

  const v1::Job& job() const { return job_; }
  bool has_snapshot() const { return has_snapshot_; }
  // Events that the snapshot includes are still to come.
  bool replaying() const { return sequence_ < snapshot_sequence_; }
  // The job as the events so far tell it; while replaying it is behind job().
  const v1::Job& shown() const { return replaying() ? replayed_ : job_; }
  // The job has ended and every event of it was seen.
  bool ended() const {
    return IsTerminal(job_.status().state()) && sequence_ >= snapshot_sequence_;
  }
  // Sequence up to which everything is known: where a watch resumes.
  int64_t sequence() const { return sequence_; }

 private:
  std::optional<int64_t> after_;
  v1::Job job_;
  v1::Job replayed_;
  bool has_snapshot_ = false;
  int64_t sequence_ = 0;
  int64_t snapshot_sequence_ = 0;
};

}  // namespace latentforge::client
