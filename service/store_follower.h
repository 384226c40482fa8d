// The thread that keeps a server in step with a store that others write to.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "service/store_clock.h"
#include "service/wakeup.h"
#include "service/watch_tail.h"

namespace latentforge::service {

// Follows the store's clock and its events every `interval`, from construction to
// destruction, and tells `on_reachable` from its thread when the store goes away (false)
// and comes back (true). Borrows tail and clock.
class StoreFollower {
 public:
  StoreFollower(WatchTail& tail, StoreClock& clock, absl::Duration interval,
                std::function<void(bool)> on_reachable);
  ~StoreFollower();

 private:
  void Run();
  void FollowClock();
  void FollowEvents();

  WatchTail& tail_;
  StoreClock& clock_;
  const absl::Duration interval_;
  const std::function<void(bool)> on_reachable_;
  Wakeup wakeup_;
  std::atomic<bool> stopping_ = false;
  // Of the thread, which logs and tells changes alone.
  bool reachable_ = true;
  bool events_come_ = true;
  std::thread thread_;  // last: it uses the others
};

}  // namespace latentforge::service
