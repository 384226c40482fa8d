// Wakes a thread that waits for work or for time to pass.
#pragma once

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace latentforge::service {

// Safe for concurrent use; one thread waits.
class Wakeup {
 public:
  void Poke() {
    absl::MutexLock lock(&mutex_);
    poked_ = true;
  }

  // True when poked since the last call, or else as soon as it is; false after `timeout`.
  bool Wait(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(&poked_), timeout);
    return std::exchange(poked_, false);
  }

 private:
  absl::Mutex mutex_;
  bool poked_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace latentforge::service
