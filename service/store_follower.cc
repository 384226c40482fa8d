#include "service/store_follower.h"

#include <utility>

#include "base/log.h"
#include "base/status_macros.h"

namespace latentforge::service {

StoreFollower::StoreFollower(WatchTail& tail, StoreClock& clock, absl::Duration interval,
                             std::function<void(bool)> on_reachable)
    : tail_(tail),
      clock_(clock),
      interval_(interval),
      on_reachable_(std::move(on_reachable)),
      thread_([this] { Run(); }) {}

StoreFollower::~StoreFollower() {
  stopping_ = true;
  wakeup_.Poke();
  thread_.join();
}

absl::Status StoreFollower::Follow() {
  LF_RETURN_IF_ERROR(clock_.Refresh());
  return tail_.Tick();
}

void StoreFollower::Run() {
  bool reachable = true;
  while (!stopping_) {
    const absl::Status status = Follow();
    if (status.ok() != reachable) {
      reachable = status.ok();
      if (reachable) {
        Log(Severity::kInfo, "the database answers again");
      } else {
        Log(Severity::kError, "the database does not answer: calls fail until it does",
            {{"error", std::string(status.message())}});
      }
      on_reachable_(reachable);
    }
    wakeup_.Wait(interval_);
  }
}

}  // namespace latentforge::service
