// Time as a constructor parameter.
#pragma once

#include "absl/time/time.h"

namespace latentforge {

// Wall and monotonic time. Implementations are safe for concurrent use.
class Clock {
 public:
  virtual ~Clock() = default;

  // Wall time; may jump.
  virtual absl::Time Now() const = 0;

  // Time since an unspecified point; never goes back. For intervals.
  virtual absl::Duration Monotonic() const = 0;

  // Blocks the calling thread.
  virtual void SleepFor(absl::Duration duration) = 0;
};

// The machine's clock; lives for the whole process.
Clock& RealClock();

}  // namespace latentforge
