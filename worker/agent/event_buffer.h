// Events that the server has not recorded yet.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/status.h"
#include "latentforge/v1/event.pb.h"

namespace latentforge::agent {

struct EventBufferLimits {
  size_t max_events = 4096;
  size_t max_bytes = size_t{16} << 20;
  // Of one report; well below the 4 MiB that a server takes.
  size_t batch_events = 256;
  size_t batch_bytes = size_t{2} << 20;
};

// Ordered and bounded. When it is full the oldest progress goes first (a later
// one says more), then the oldest perplexity and log line; phases are never
// dropped. Dropping leaves gaps in the sequences. Not safe for concurrent use.
class EventBuffer {
 public:
  explicit EventBuffer(EventBufferLimits limits = {}) : limits_(limits) {}

  // ResourceExhausted when only events are left that may not be dropped.
  absl::Status Push(v1::AttemptEvent event);

  bool empty() const { return events_.empty(); }
  size_t size() const { return events_.size(); }

  // The oldest events, as many as one report may hold; at least one unless empty.
  std::vector<v1::AttemptEvent> Batch() const;

  // Forgets everything up to this sequence.
  void Acknowledge(int64_t sequence);

 private:
  struct Entry {
    v1::AttemptEvent event;
    size_t bytes;
  };
  bool Full() const { return events_.size() > limits_.max_events || bytes_ > limits_.max_bytes; }
  bool DropOldest(v1::AttemptEvent::KindCase kind);

  const EventBufferLimits limits_;
  std::deque<Entry> events_;
  size_t bytes_ = 0;
};

}  // namespace latentforge::agent
