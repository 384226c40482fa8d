#include "worker/agent/log_buffer.h"

#include <string>

namespace latentforge::agent {

void LogBuffer::Push(absl::string_view text, bool truncated, absl::Time time) {
  v1::AttemptLogLine& line = lines_.emplace_back();
  line.set_sequence(++last_sequence_);
  const int64_t seconds = absl::ToUnixSeconds(time);
  line.mutable_time()->set_seconds(seconds);
  line.mutable_time()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
  line.set_text(std::string(text));
  line.set_truncated(truncated);
  bytes_ += text.size();
  while (lines_.size() > limits_.max_lines || (bytes_ > limits_.max_bytes && lines_.size() > 1)) {
    bytes_ -= lines_.front().text().size();
    lines_.pop_front();
    ++dropped_;
  }
}

std::vector<v1::AttemptLogLine> LogBuffer::Batch() const {
  std::vector<v1::AttemptLogLine> batch;
  size_t bytes = 0;
  for (const v1::AttemptLogLine& line : lines_) {
    bytes += line.text().size();
    const bool fits = batch.size() < limits_.batch_lines && bytes <= limits_.batch_bytes;
    if (!batch.empty() && !fits) break;
    batch.push_back(line);
  }
  return batch;
}

void LogBuffer::Acknowledge(int64_t sequence) {
  while (!lines_.empty() && lines_.front().sequence() <= sequence) {
    bytes_ -= lines_.front().text().size();
    lines_.pop_front();
  }
}

}  // namespace latentforge::agent
