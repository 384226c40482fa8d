#include "service/watch_hub.h"

#include <utility>

namespace latentforge::service {

std::unique_ptr<WatchHub::Subscription> WatchHub::Subscribe(const std::string& id,
                                                            std::function<void()> notify) {
  std::unique_ptr<Subscription> subscription(new Subscription(*this, id, std::move(notify)));
  absl::MutexLock lock(&mutex_);
  watchers_[id].insert(subscription.get());
  return subscription;
}

WatchHub::Subscription::~Subscription() {
  absl::MutexLock lock(&hub_.mutex_);
  const auto found = hub_.watchers_.find(id_);
  found->second.erase(this);
  if (found->second.empty()) hub_.watchers_.erase(found);
}

std::vector<std::shared_ptr<const v1::JobEvent>> WatchHub::Subscription::Take() {
  absl::MutexLock lock(&hub_.mutex_);
  std::vector<std::shared_ptr<const v1::JobEvent>> taken(ring_.begin(), ring_.end());
  ring_.clear();
  return taken;
}

void WatchHub::Publish(const std::string& id, const std::vector<v1::JobEvent>& events) {
  if (events.empty()) return;
  absl::MutexLock lock(&mutex_);
  const auto found = watchers_.find(id);
  if (found == watchers_.end()) return;
  for (const v1::JobEvent& event : events) {
    const auto shared = std::make_shared<const v1::JobEvent>(event);
    for (Subscription* subscription : found->second) {
      // subscription->hub_ is this hub, which the analysis cannot know.
      subscription->hub_.mutex_.AssertHeld();
      subscription->ring_.push_back(shared);
      if (subscription->ring_.size() > kRing) subscription->ring_.pop_front();
    }
  }
  for (Subscription* subscription : found->second) subscription->notify_();
}

}  // namespace latentforge::service
