#include "service/store/log_lines.h"

#include <algorithm>

namespace latentforge::service {

std::vector<NewLogLine> NewLines(const LogAppend& append, LogEnd& end, LogAppended& appended) {
  std::vector<NewLogLine> lines;
  for (const LogRecord& line : append.lines) {
    if (line.sequence <= end.sequence) continue;
    appended.missing += line.sequence - end.sequence - 1;
    end.sequence = line.sequence;
    end.total_bytes += static_cast<int64_t>(line.text.size());
    lines.push_back({&line, end.total_bytes});
  }
  appended.added = static_cast<int64_t>(lines.size());
  appended.last_sequence = end.sequence;
  return lines;
}

int64_t FirstKept(const LogAppend& append, const LogEnd& end, std::optional<int64_t> within_bytes) {
  return std::max(within_bytes.value_or(0), end.sequence - append.keep.lines + 1);
}

}  // namespace latentforge::service
