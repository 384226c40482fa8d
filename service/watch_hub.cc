#include "service/watch_hub.h"

#include <algorithm>
#include <utility>

namespace latentforge::service {

std::unique_ptr<WatchHub::Subscription> WatchHub::Subscribe(const std::string& id,
                                                            std::function<void()> notify) {
  std::unique_ptr<Subscription> subscription(new Subscription(*this, id, std::move(notify)));
  absl::MutexLock lock(&mutex_);
  watched_[id].subscriptions.insert(subscription.get());
  return subscription;
}

WatchHub::Subscription::~Subscription() {
  absl::MutexLock lock(&hub_.mutex_);
  const auto found = hub_.watched_.find(id_);
  found->second.subscriptions.erase(this);
  if (found->second.subscriptions.empty()) hub_.watched_.erase(found);
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
  const auto found = watched_.find(id);
  if (found == watched_.end()) return;
  Watched& watched = found->second;
  for (const v1::JobEvent& event : events) {
    watched.published = std::max(watched.published, event.sequence());
    const auto shared = std::make_shared<const v1::JobEvent>(event);
    for (Subscription* subscription : watched.subscriptions) {
      // subscription->hub_ is this hub, which the analysis cannot know.
      subscription->hub_.mutex_.AssertHeld();
      subscription->ring_.push_back(shared);
      if (subscription->ring_.size() > kRing) subscription->ring_.pop_front();
    }
  }
  for (Subscription* subscription : watched.subscriptions) subscription->notify_();
}

std::map<std::string, int64_t> WatchHub::Published() {
  absl::MutexLock lock(&mutex_);
  std::map<std::string, int64_t> published;
  for (const auto& [id, watched] : watched_) published[id] = watched.published;
  return published;
}

}  // namespace latentforge::service
