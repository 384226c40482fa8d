// What followers of a log find when they look whether there is more of it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "service/log_record.h"
#include "service/store/store.h"

namespace latentforge::service {

// From which line of which attempt on somebody reads; attempt 0 is before the first.
struct LogPlace {
  std::string job;
  int32_t attempt = 0;
  int64_t after = 0;

  friend auto operator<=>(const LogPlace&, const LogPlace&) = default;
};

// What was there. A plain value.
struct LogLook {
  bool ended = false;            // no line of the attempt came after these
  std::vector<LogRecord> lines;  // in order, at most kLines
  // Where there were no lines:
  int32_t next_attempt = 0;  // 0: none yet
  bool job_ended = false;    // and none will come

  // Of at most a little more than 4 KiB each: a message of them stays well below 4 MiB.
  static constexpr int kLines = 256;
};

// Safe for concurrent use. Borrows store and clock.
class LogLooks {
 public:
  // What one follower has found serves all others at the same place for `fresh`, so that many
  // who follow one job ask the store as often as one.
  LogLooks(Store& store, const Clock& clock, absl::Duration fresh)
      : store_(store), clock_(clock), fresh_(fresh) {}

  // Asks the store. NotFound when the job is gone.
  absl::StatusOr<std::shared_ptr<const LogLook>> Read(const LogPlace& place);

  // The same, or what another caller has just found.
  absl::StatusOr<std::shared_ptr<const LogLook>> Share(const LogPlace& place);

 private:
  // A look that is under way, or was made. Guarded by the shard's mutex.
  struct Shared {
    bool made = false;
    absl::StatusOr<std::shared_ptr<const LogLook>> look;
    absl::Duration until;  // monotonic
  };
  // Who asks for a place while another reads it waits for that; the mutex is free meanwhile.
  struct Shard {
    absl::Mutex mutex;
    std::map<LogPlace, std::shared_ptr<Shared>> looks ABSL_GUARDED_BY(mutex);
  };

  // What is known of the place's attempt and the one behind it, without any lines.
  absl::StatusOr<LogLook> LookAtAttempts(const LogPlace& place);
  // Gives the look to those who wait, and keeps it for others where it may be kept.
  void Finish(const LogPlace& place, Shared& shared,
              absl::StatusOr<std::shared_ptr<const LogLook>> look, Shard& shard);

  Store& store_;
  const Clock& clock_;
  const absl::Duration fresh_;
  std::array<Shard, 16> shards_;
};

}  // namespace latentforge::service
