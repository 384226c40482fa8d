#include "service/watch_tail.h"

#include <map>
#include <string>
#include <vector>

#include "base/status_macros.h"

namespace latentforge::service {

absl::Status WatchTail::Tick() {
  const std::map<std::string, int64_t> published = hub_.Published();
  if (published.empty()) return absl::OkStatus();
  std::vector<std::string> ids;
  for (const auto& [id, sequence] : published) ids.push_back(id);
  LF_ASSIGN_OR_RETURN(const auto stored, store_.LastSequences(ids));
  absl::Status first_error;
  for (const auto& [id, last] : stored) {
    const int64_t known = published.at(id);
    if (last <= known) continue;
    // Nothing was published since the first watcher came: the last event is enough, for
    // a watcher that lacks more reads it from the store.
    const int64_t after = known > 0 ? known : last - 1;
    const auto events = store_.Events(id, after, static_cast<int>(WatchHub::kRing));
    // A job that was deleted at this moment has nothing more to tell.
    if (!absl::IsNotFound(events.status())) first_error.Update(events.status());
    if (events.ok()) hub_.Publish(id, *events);
  }
  return first_error;
}

}  // namespace latentforge::service
