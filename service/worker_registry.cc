#include "service/worker_registry.h"

namespace latentforge::service {

void WorkerRegistry::Introduce(const v1::WorkerInfo& info, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  workers_[info.name()] = {info, now};
}

void WorkerRegistry::Touch(const std::string& name, absl::Time now) {
  if (name.empty()) return;
  absl::MutexLock lock(&mutex_);
  Presence& presence = workers_[name];
  presence.info.set_name(name);
  presence.last_seen = now;
}

std::vector<WorkerRegistry::Presence> WorkerRegistry::List(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  std::erase_if(workers_,
                [&](const auto& entry) { return now - entry.second.last_seen > forget_after_; });
  std::vector<Presence> present;
  for (const auto& [name, presence] : workers_) present.push_back(presence);
  return present;
}

}  // namespace latentforge::service
