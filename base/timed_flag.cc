#include "base/timed_flag.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace latentforge {
namespace {

// What the clock's type can count to; it is as good as forever.
constexpr absl::Duration kLongest = absl::Hours(100 * 365 * 24);

}  // namespace

void TimedFlag::Set() {
  // Told with the lock held: who was waiting may destroy this as soon as it has it.
  const std::lock_guard<std::mutex> lock(mutex_);
  set_ = true;
  changed_.notify_all();
}

bool TimedFlag::IsSet() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return set_;
}

bool TimedFlag::WaitFor(absl::Duration timeout) const {
  std::unique_lock<std::mutex> lock(mutex_);
  return WaitLocked(lock, timeout);
}

bool TimedFlag::TakeWithin(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  WaitLocked(lock, timeout);
  return std::exchange(set_, false);
}

bool TimedFlag::WaitLocked(std::unique_lock<std::mutex>& lock, absl::Duration timeout) const {
  const absl::Duration bounded = std::clamp(timeout, absl::ZeroDuration(), kLongest);
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(bounded);
  return changed_.wait_until(lock, deadline, [this] { return set_; });
}

}  // namespace latentforge
