#include "worker/agent/line_splitter.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"

namespace latentforge::agent {

absl::Status LineSplitter::Feed(absl::string_view bytes, Sink sink) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const absl::string_view piece = bytes.substr(0, end);
    const size_t room = max_line_bytes_ - line_.size();
    truncated_ = truncated_ || piece.size() > room;
    line_.append(piece.data(), std::min(piece.size(), room));
    if (end == absl::string_view::npos) break;
    bytes.remove_prefix(end + 1);
    const std::string line = std::exchange(line_, {});
    LF_RETURN_IF_ERROR(sink(line, std::exchange(truncated_, false)));
  }
  return absl::OkStatus();
}

absl::Status LineSplitter::Finish(Sink sink) {
  if (line_.empty() && !truncated_) return absl::OkStatus();
  const std::string line = std::exchange(line_, {});
  return sink(line, std::exchange(truncated_, false));
}

}  // namespace latentforge::agent
