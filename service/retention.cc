#include "service/retention.h"

#include <iterator>

#include "base/status_macros.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

// Few enough that workers which wait for jobs notice nothing.
constexpr int kJobs = 50;
constexpr int kTombstones = 500;
constexpr absl::Duration kInterval = absl::Seconds(1);

}  // namespace

absl::Status Retention::Sweep() {
  const absl::Duration now = engine_.Monotonic();
  if (now < next_) return absl::OkStatus();
  next_ = now + kInterval;
  absl::Status status = DeleteExpired();
  status.Update(engine_.store().PurgeTombstones(engine_.Now() - tombstone_ttl_, kTombstones));
  return status;
}

absl::Status Retention::DeleteExpired() {
  LF_ASSIGN_OR_RETURN(const auto expired, engine_.store().ExpiredBy(engine_.Now(), kJobs));
  if (std::ssize(expired) == kJobs) next_ = -absl::InfiniteDuration();
  for (const JobRecord& record : expired) {
    const absl::Status deleted = engine_.Delete(record);
    // Retried or deleted by a user meanwhile.
    if (absl::IsNotFound(deleted) || ReasonOf(deleted) == kConcurrentTransition) continue;
    LF_RETURN_IF_ERROR(deleted);
  }
  return absl::OkStatus();
}

}  // namespace latentforge::service
