// How many calls are under way, so that a stop can wait for them and for no more.
#pragma once

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace latentforge::service {

// Safe for concurrent use.
class InFlight {
 public:
  void Begin() {
    absl::MutexLock lock(&mutex_);
    ++calls_;
    none_ = false;
  }

  void End() {
    absl::MutexLock lock(&mutex_);
    none_ = --calls_ == 0;
  }

  // True as soon as no call is under way; false after `timeout`.
  bool WaitForNone(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&none_), timeout);
  }

 private:
  absl::Mutex mutex_;
  int64_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  bool none_ ABSL_GUARDED_BY(mutex_) = true;
};

}  // namespace latentforge::service
