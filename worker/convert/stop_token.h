// Asks a running attempt to stop at its next safe point.
#pragma once

#include <atomic>

namespace latentforge::convert {

// Safe for concurrent use and from signal handlers.
class StopToken {
 public:
  void Request() { requested_.store(true, std::memory_order_relaxed); }
  bool requested() const { return requested_.load(std::memory_order_relaxed); }

 private:
  static_assert(std::atomic<bool>::is_always_lock_free);
  std::atomic<bool> requested_{false};
};

// The token that SIGTERM and SIGINT request once InstallStopSignals has run. Also
// makes a closed output pipe an error of write instead of a signal.
StopToken& SignalStopToken();
void InstallStopSignals();

}  // namespace latentforge::convert
