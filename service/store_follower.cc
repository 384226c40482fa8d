#include "service/store_follower.h"

#include <utility>

#include "base/log.h"

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

void StoreFollower::FollowClock() {
  const absl::Status answer = clock_.Refresh();
  if (answer.ok() == reachable_) return;
  reachable_ = answer.ok();
  if (reachable_) {
    Log(Severity::kInfo, "the database answers again");
  } else {
    Log(Severity::kError, "the database does not answer: calls fail until it does",
        {{"error", std::string(answer.message())}});
  }
  on_reachable_(reachable_);
}

void StoreFollower::FollowEvents() {
  const absl::Status published = tail_.Tick();
  if (events_come_ && !published.ok()) {
    Log(Severity::kError, "watches miss events of other servers until they can be read",
        {{"error", std::string(published.message())}});
  }
  events_come_ = published.ok();
}

void StoreFollower::Run() {
  while (!stopping_) {
    FollowClock();
    if (reachable_) FollowEvents();
    wakeup_.Wait(interval_);
  }
}

}  // namespace latentforge::service
