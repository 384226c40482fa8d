// A clock that tests move.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"

namespace latentforge {

// Stands still until Advance or SleepFor. Safe for concurrent use.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::FromUnixSeconds(1'700'000'000)) : start_(start) {}

  absl::Time Now() const override {
    absl::MutexLock lock(&mutex_);
    return start_ + elapsed_ + step_;
  }

  absl::Duration Monotonic() const override {
    absl::MutexLock lock(&mutex_);
    return elapsed_;
  }

  // Does not block: time passes at once.
  void SleepFor(absl::Duration duration) override { Advance(duration); }

  void Advance(absl::Duration duration) {
    absl::MutexLock lock(&mutex_);
    elapsed_ += duration;
  }

  // Sets the wall clock forward, or back by a negative step; no time passes.
  void StepWall(absl::Duration step) {
    absl::MutexLock lock(&mutex_);
    step_ += step;
  }

 private:
  const absl::Time start_;
  mutable absl::Mutex mutex_;
  absl::Duration elapsed_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();
  absl::Duration step_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();
};

}  // namespace latentforge
