// Lines of one attempt's log that the server has not stored yet.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "latentforge/v1/worker_service.pb.h"

namespace latentforge::agent {

struct LogBufferLimits {
  size_t max_lines = 4096;
  size_t max_bytes = size_t{2} << 20;
  // Of one call.
  size_t batch_lines = 256;
  size_t batch_bytes = size_t{512} << 10;
};

// Ordered and bounded: the oldest lines make room for new ones, and leave a gap in the
// sequences. Not safe for concurrent use.
class LogBuffer {
 public:
  explicit LogBuffer(LogBufferLimits limits = {}) : limits_(limits) {}

  // Gives the line the next sequence.
  void Push(absl::string_view text, bool truncated, absl::Time time);

  bool empty() const { return lines_.empty(); }
  // A call would be full.
  bool HasBatch() const {
    return lines_.size() >= limits_.batch_lines || bytes_ >= limits_.batch_bytes;
  }

  // The oldest lines, as many as one call may hold; at least one unless empty.
  std::vector<v1::AttemptLogLine> Batch() const;

  // Forgets everything up to this sequence.
  void Acknowledge(int64_t sequence);

  // Lines that made room for others.
  int64_t dropped() const { return dropped_; }

 private:
  const LogBufferLimits limits_;
  std::deque<v1::AttemptLogLine> lines_;
  size_t bytes_ = 0;  // of their text
  int64_t last_sequence_ = 0;
  int64_t dropped_ = 0;
};

}  // namespace latentforge::agent
