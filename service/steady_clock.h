// Wall time that never jumps.
#pragma once

#include "base/clock.h"

namespace latentforge::service {

// Reads the wall clock once and then follows the monotonic one: a step of the
// wall clock must not end every lease at once. Safe for concurrent use. Borrows.
class SteadyClock final : public Clock {
 public:
  explicit SteadyClock(Clock& clock)
      : clock_(clock), wall_(clock.Now()), start_(clock.Monotonic()) {}

  absl::Time Now() const override { return wall_ + (clock_.Monotonic() - start_); }
  absl::Duration Monotonic() const override { return clock_.Monotonic(); }
  void SleepFor(absl::Duration duration) override { clock_.SleepFor(duration); }

 private:
  Clock& clock_;
  const absl::Time wall_;
  const absl::Duration start_;
};

}  // namespace latentforge::service
