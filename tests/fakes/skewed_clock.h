// The clock of a machine whose wall clock is wrong.
#pragma once

#include "base/clock.h"

namespace latentforge {

// Immutable: safe for concurrent use.
class SkewedClock final : public Clock {
 public:
  explicit SkewedClock(absl::Duration skew) : skew_(skew) {}

  absl::Time Now() const override { return RealClock().Now() + skew_; }
  absl::Duration Monotonic() const override { return RealClock().Monotonic(); }
  void SleepFor(absl::Duration duration) override { RealClock().SleepFor(duration); }

 private:
  const absl::Duration skew_;
};

}  // namespace latentforge
