// Why a running attempt has to stop, shared by its threads.
#pragma once

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/shared_deadline.h"
#include "base/timed_flag.h"
#include "base/unique_fd.h"
#include "latentforge/v1/worker_service.pb.h"

namespace latentforge::agent {

// In rising gravity; the gravest wins.
enum class StopReason {
  kNone,
  kPause,          // the server asked for it; what is finished is kept
  kRelease,        // the worker is leaving
  kCancel,         // the server asked for it
  kLeaseDeadline,  // by our own clock the lease is about to expire
  kLeaseLost,      // the server refused the lease
};

// Why an attempt stops that is given this command; kNone: it goes on.
StopReason StopWantedBy(v1::AttemptCommand command);

// Safe for concurrent use.
class AttemptControl {
 public:
  // Errors: ResourceExhausted when no descriptor is left.
  static absl::StatusOr<std::unique_ptr<AttemptControl>> Create();

  // Stops the attempt unless a graver reason stands already.
  void RequestStop(StopReason reason);
  StopReason reason() const;

  // No more waiting for the server either: Pause() returns at once.
  void GiveUp();
  bool gave_up() const;

  // Waits before the next try to report. False, at once, when nothing may be
  // reported any more: the lease is lost or we gave up.
  bool Pause(absl::Duration duration) const;

  // Until when the attempt may publish, by the monotonic clock: told to the compute process once
  // there is a file for that.
  void SetDeadline(absl::Duration monotonic);
  void ShareDeadline(SharedDeadline file);

  // Readable after a new reason, until ClearWake.
  int wake_fd() const { return wake_fd_.get(); }
  void ClearWake();

 private:
  explicit AttemptControl(UniqueFd wake_fd) : wake_fd_(std::move(wake_fd)) {}

  const UniqueFd wake_fd_;
  mutable absl::Mutex mutex_;
  StopReason reason_ ABSL_GUARDED_BY(mutex_) = StopReason::kNone;
  bool gave_up_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration deadline_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();
  std::optional<SharedDeadline> shared_ ABSL_GUARDED_BY(mutex_);
  TimedFlag silenced_;  // gave up, or the lease is lost
};

}  // namespace latentforge::agent
