// A flag that threads wait for, by the monotonic clock.
#pragma once

#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"

namespace latentforge {

// For bounded waits of threads that must go on: Abseil hands the kernel the wall clock's time to
// wait until, so that its waits last longer by what that clock is set back. Safe for concurrent
// use.
class TimedFlag {
 public:
  void Set();
  bool IsSet() const;

  // True as soon as it is set; false after `timeout`.
  bool WaitFor(absl::Duration timeout) const;

  // The same, and it is set no more.
  bool TakeWithin(absl::Duration timeout);

 private:
  bool WaitLocked(std::unique_lock<std::mutex>& lock, absl::Duration timeout) const;

  // The library's mutex is no capability to clang's -Wthread-safety, which cannot check that every
  // method locks it.
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool set_ = false;  // guarded by mutex_
};

}  // namespace latentforge
