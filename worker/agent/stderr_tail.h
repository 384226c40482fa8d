// Keeps the last lines that a compute process wrote to stderr.
#pragma once

#include <deque>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "worker/agent/line_splitter.h"

namespace latentforge::agent {

// `text` as valid UTF-8 without control characters, fit for messages and logs.
std::string PrintableText(absl::string_view text);

// A line that a compute process wrote.
struct StderrLine {
  absl::string_view bytes;       // as it was written, without its end
  bool truncated = false;        // it was longer
  const std::string& printable;  // what is kept of it
};

// Bounded in lines and in bytes a line. Not safe for concurrent use.
class StderrTail {
 public:
  using Each = absl::FunctionRef<void(const StderrLine&)>;

  // `max_kept_bytes` of a line are kept, `max_line_bytes` handed out.
  explicit StderrTail(size_t max_lines, size_t max_kept_bytes = 1024, size_t max_line_bytes = 4096)
      : max_lines_(max_lines), max_kept_bytes_(max_kept_bytes), splitter_(max_line_bytes) {}

  // Calls `each` with every line completed by these bytes.
  void Feed(absl::string_view bytes, Each each);
  void Finish(Each each);

  const std::deque<std::string>& lines() const { return lines_; }

 private:
  void Keep(absl::string_view line, bool truncated, Each each);

  const size_t max_lines_;
  const size_t max_kept_bytes_;
  LineSplitter splitter_;
  std::deque<std::string> lines_;
};

}  // namespace latentforge::agent
