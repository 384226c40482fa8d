#include "service/watch_registry.h"

#include "absl/strings/str_cat.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

absl::Status TooManyError(absl::string_view whose, const char* limit, int most) {
  return WithRetryDelay(
      MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_WATCHES",
                absl::StrCat(whose, " has ", most, " open watches, as many as ", limit, " allows"),
                {{"limit", limit}, {"watches", absl::StrCat(most)}}),
      absl::Seconds(10));
}

}  // namespace

WatchRegistry::WatchRegistry(const Limits& limits, absl::Duration interval)
    : limits_(limits), interval_(interval), thread_([this] { Run(); }) {}

WatchRegistry::~WatchRegistry() {
  stopping_.Set();
  thread_.join();
}

absl::Status WatchRegistry::Add(Watcher* watcher, const std::string& tenant) {
  absl::MutexLock lock(&mutex_);
  if (static_cast<int>(watchers_.size()) >= limits_.watches)
    return TooManyError("the server", "--max-watches", limits_.watches);
  const auto own = counts_.find(tenant);
  if (limits_.watches_per_tenant > 0 && own != counts_.end() &&
      own->second >= limits_.watches_per_tenant)
    return TooManyError("the tenant", "--max-watches-per-tenant", limits_.watches_per_tenant);
  watchers_[watcher] = tenant;
  counts_[tenant] += 1;
  return absl::OkStatus();
}

void WatchRegistry::Remove(Watcher* watcher) {
  absl::MutexLock lock(&mutex_);
  const auto found = watchers_.find(watcher);
  if (--counts_[found->second] == 0) counts_.erase(found->second);
  watchers_.erase(found);
}

void WatchRegistry::Drain() {
  draining_ = true;
  absl::MutexLock lock(&mutex_);
  for (const auto& [watcher, tenant] : watchers_) watcher->OnDrain();
}

int WatchRegistry::size() {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(watchers_.size());
}

void WatchRegistry::Run() {
  while (!stopping_.WaitFor(interval_)) {
    absl::MutexLock lock(&mutex_);
    for (const auto& [watcher, tenant] : watchers_) watcher->OnTick();
  }
}

}  // namespace latentforge::service
