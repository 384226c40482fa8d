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

// Bounded in lines and in bytes a line. Not safe for concurrent use.
class StderrTail {
 public:
  explicit StderrTail(size_t max_lines, size_t max_line_bytes = 1024)
      : max_lines_(max_lines), splitter_(max_line_bytes) {}

  // Calls `each` with every line completed by these bytes, already printable.
  void Feed(absl::string_view bytes, absl::FunctionRef<void(const std::string&)> each);
  void Finish(absl::FunctionRef<void(const std::string&)> each);

  const std::deque<std::string>& lines() const { return lines_; }

 private:
  void Keep(absl::string_view line, bool truncated,
            absl::FunctionRef<void(const std::string&)> each);

  const size_t max_lines_;
  LineSplitter splitter_;
  std::deque<std::string> lines_;
};

}  // namespace latentforge::agent
