#include "service/watch_registry.h"

namespace latentforge::service {

WatchRegistry::WatchRegistry(int limit, absl::Duration interval)
    : limit_(limit), interval_(interval), thread_([this] { Run(); }) {}

WatchRegistry::~WatchRegistry() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

bool WatchRegistry::Add(Watcher* watcher) {
  absl::MutexLock lock(&mutex_);
  if (static_cast<int>(watchers_.size()) >= limit_) return false;
  watchers_.insert(watcher);
  return true;
}

void WatchRegistry::Remove(Watcher* watcher) {
  absl::MutexLock lock(&mutex_);
  watchers_.erase(watcher);
}

void WatchRegistry::Drain() {
  draining_ = true;
  absl::MutexLock lock(&mutex_);
  for (Watcher* watcher : watchers_) watcher->OnDrain();
}

int WatchRegistry::size() {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(watchers_.size());
}

void WatchRegistry::Run() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithTimeout(absl::Condition(&stopping_), interval_))
    for (Watcher* watcher : watchers_) watcher->OnTick();
}

}  // namespace latentforge::service
