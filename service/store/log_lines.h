// Which lines of an append are new, and which of an attempt's lines are kept: the same rules for
// every store. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "service/log_record.h"

namespace latentforge::service {

// Where the log of one attempt ends.
struct LogEnd {
  int64_t sequence = 0;
  int64_t total_bytes = 0;  // of all its text, kept or not
};

// A line to be written. Borrows it.
struct NewLogLine {
  const LogRecord* line = nullptr;
  int64_t total_bytes = 0;  // of the attempt's text up to and with this line
};

// The lines behind `end`, which moves behind them; `appended` is what is answered.
std::vector<NewLogLine> NewLines(const LogAppend& append, LogEnd& end, LogAppended& appended);

// The sequence of the first line to be kept of a log that ends at `end`. `within_bytes` is that of
// the first line whose total is above end.total_bytes - append.keep.bytes, where there is one.
int64_t FirstKept(const LogAppend& append, const LogEnd& end, std::optional<int64_t> within_bytes);

}  // namespace latentforge::service
