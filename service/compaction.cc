#include "service/compaction.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "base/status_macros.h"

namespace latentforge::service {
namespace {

// Few enough that a commit which waits for them notices nothing.
constexpr int kJobsASweep = 10;
constexpr int64_t kEventsATransaction = 1000;
constexpr absl::Duration kSweepInterval = absl::Seconds(10);

}  // namespace

absl::Status Compaction::CompactOne(const EventSpan& span) {
  const int64_t wanted = span.last - (events_per_job_ - events_per_job_ / 10);
  EventCompaction compaction;
  compaction.id = span.id;
  compaction.through = std::min(wanted, span.compacted + kEventsATransaction);
  LF_ASSIGN_OR_RETURN(
      const std::vector<v1::JobEvent> events,
      engine_.store().Events(span.id, span.compacted, static_cast<int>(kEventsATransaction)));
  for (const v1::JobEvent& event : events) {
    if (event.sequence() <= compaction.through && event.has_state_changed())
      compaction.keep.push_back(event.sequence());
  }
  return engine_.store().CompactEvents(compaction);
}

absl::Status Compaction::Sweep() {
  const absl::Duration now = engine_.Monotonic();
  if (now < next_) return absl::OkStatus();
  next_ = now + kSweepInterval;
  LF_ASSIGN_OR_RETURN(const std::vector<EventSpan> spans,
                      engine_.store().LongHistories(events_per_job_, kJobsASweep));
  if (!spans.empty()) next_ = -absl::InfiniteDuration();
  absl::Status first_error;
  for (const EventSpan& span : spans) {
    const absl::Status compacted = CompactOne(span);
    // Deleted meanwhile.
    if (!absl::IsNotFound(compacted)) first_error.Update(compacted);
  }
  return first_error;
}

}  // namespace latentforge::service
