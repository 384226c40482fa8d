// Cuts a stream of bytes into lines of bounded length.
#pragma once

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace latentforge::agent {

// Holds at most one unfinished line. Not safe for concurrent use.
class LineSplitter {
 public:
  // Gets a line without its end; `truncated` when it was longer than the limit
  // and only its beginning is there. An error stops the feeding.
  using Sink = absl::FunctionRef<absl::Status(absl::string_view line, bool truncated)>;

  explicit LineSplitter(size_t max_line_bytes) : max_line_bytes_(max_line_bytes) {}

  absl::Status Feed(absl::string_view bytes, Sink sink);

  // Hands out what follows the last line end, if anything.
  absl::Status Finish(Sink sink);

 private:
  const size_t max_line_bytes_;
  std::string line_;
  bool truncated_ = false;
};

}  // namespace latentforge::agent
