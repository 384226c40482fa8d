#include "service/worker_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

bool IsAnotherProcess(const v1::WorkerInfo& a, const v1::WorkerInfo& b) {
  return !a.instance().empty() && !b.instance().empty() && a.instance() != b.instance();
}

std::string Seconds(absl::Duration duration) {
  return absl::StrCat(absl::ToInt64Seconds(duration), " s");
}

absl::Status NameTaken(const WorkerRegistry::Presence& other, absl::Time now,
                       absl::Duration alive_for) {
  const std::string& name = other.info.name();
  const std::string since =
      absl::FormatTime(absl::RFC3339_sec, other.first_seen, absl::UTCTimeZone());
  return WithRetryDelay(
      MakeError(
          absl::StatusCode::kAlreadyExists, kWorkerNameTaken,
          absl::StrCat("another worker named ", name, ", on host ", other.info.hostname(),
                       ", is alive since ", since, " and called ", Seconds(now - other.last_seen),
                       " ago; start this one under another name with --name, or stop that "
                       "one (once silent for ",
                       Seconds(alive_for), " it counts as dead)"),
          {{"worker", name}, {"hostname", other.info.hostname()}, {"alive_since", since}}),
      other.last_seen + alive_for - now);
}

}  // namespace

absl::Status WorkerRegistry::Introduce(const v1::WorkerInfo& info, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  const auto found = workers_.find(info.name());
  absl::Time first_seen = now;
  if (found != workers_.end()) {
    const Presence& other = found->second;
    const bool another = IsAnotherProcess(other.info, info);
    if (another && !other.left && now - other.last_seen < alive_for_)
      return NameTaken(other, now, alive_for_);
    if (!another) first_seen = other.first_seen;
  }
  workers_[info.name()] = {info, now, first_seen, false};
  return absl::OkStatus();
}

void WorkerRegistry::Touch(const std::string& name, absl::Time now) {
  if (name.empty()) return;
  absl::MutexLock lock(&mutex_);
  const auto [entry, added] = workers_.try_emplace(name);
  Presence& presence = entry->second;
  presence.info.set_name(name);
  presence.last_seen = now;
  if (added) presence.first_seen = now;
  presence.left = false;
}

void WorkerRegistry::Leave(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  if (const auto found = workers_.find(name); found != workers_.end()) found->second.left = true;
}

std::vector<WorkerRegistry::Presence> WorkerRegistry::List(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  std::erase_if(workers_,
                [&](const auto& entry) { return now - entry.second.last_seen > forget_after_; });
  std::vector<Presence> present;
  for (const auto& [name, presence] : workers_) {
    if (!presence.left) present.push_back(presence);
  }
  return present;
}

}  // namespace latentforge::service
