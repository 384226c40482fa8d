// The time of the store, kept between looks at it.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "service/store/store.h"

namespace latentforge::service {

// Goes on from Store::Now with this machine's monotonic clock: leases and deadlines then
// mean the same to every server of the store, whatever their wall clocks say, and a step
// of a wall clock ends no lease. Safe for concurrent use. Borrows store and clock.
class StoreClock final : public Clock {
 public:
  // Anchors the clock; errors of Store::Now.
  static absl::StatusOr<std::unique_ptr<StoreClock>> Start(Store& store, Clock& clock);

  // Asks the store again, so that the rates of both clocks may differ. An answer that
  // took long says little about the time and changes nothing. Errors of Store::Now.
  absl::Status Refresh();

  absl::Time Now() const override;
  absl::Duration Monotonic() const override { return clock_.Monotonic(); }
  void SleepFor(absl::Duration duration) override { clock_.SleepFor(duration); }

 private:
  StoreClock(Store& store, Clock& clock) : store_(store), clock_(clock) {}

  struct Anchor {
    absl::Time time;           // of the store
    absl::Duration monotonic;  // of this machine, at that moment
    absl::Duration error;      // at most
  };
  absl::StatusOr<Anchor> Ask();

  Store& store_;
  Clock& clock_;
  mutable absl::Mutex mutex_;
  Anchor anchor_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::service
