// Wakes a thread that waits for work or for time to pass.
#pragma once

#include "absl/time/time.h"
#include "base/timed_flag.h"

namespace latentforge::service {

// Safe for concurrent use; one thread waits.
class Wakeup {
 public:
  void Poke() { poked_.Set(); }

  // True when poked since the last call, or else as soon as it is; false after `timeout`.
  bool Wait(absl::Duration timeout) { return poked_.TakeWithin(timeout); }

 private:
  TimedFlag poked_;
};

}  // namespace latentforge::service
