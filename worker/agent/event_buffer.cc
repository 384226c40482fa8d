#include "worker/agent/event_buffer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace latentforge::agent {

bool EventBuffer::DropOldest(v1::AttemptEvent::KindCase kind) {
  const auto oldest = std::find_if(events_.begin(), events_.end(), [kind](const Entry& entry) {
    return entry.event.kind_case() == kind;
  });
  if (oldest == events_.end()) return false;
  bytes_ -= oldest->bytes;
  events_.erase(oldest);
  return true;
}

absl::Status EventBuffer::Push(v1::AttemptEvent event) {
  const size_t bytes = event.ByteSizeLong();
  bytes_ += bytes;
  events_.push_back({std::move(event), bytes});
  while (Full()) {
    if (!DropOldest(v1::AttemptEvent::kProgress) && !DropOldest(v1::AttemptEvent::kHealing) &&
        !DropOldest(v1::AttemptEvent::kPerplexity) && !DropOldest(v1::AttemptEvent::kLog)) {
      return absl::ResourceExhaustedError(
          absl::StrCat(events_.size(),
                       " events that may not be dropped wait to be reported, at "
                       "most ",
                       limits_.max_events, " may"));
    }
  }
  return absl::OkStatus();
}

std::vector<v1::AttemptEvent> EventBuffer::Batch() const {
  std::vector<v1::AttemptEvent> batch;
  size_t bytes = 0;
  for (const Entry& entry : events_) {
    bytes += entry.bytes;
    const bool fits = batch.size() < limits_.batch_events && bytes <= limits_.batch_bytes;
    if (!batch.empty() && !fits) break;
    batch.push_back(entry.event);
  }
  return batch;
}

void EventBuffer::Acknowledge(int64_t sequence) {
  while (!events_.empty() && events_.front().event.sequence() <= sequence) {
    bytes_ -= events_.front().bytes;
    events_.pop_front();
  }
}

}  // namespace latentforge::agent
