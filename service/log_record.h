// Lines of attempts' logs as the server keeps them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace latentforge::service {

// One line. A plain value.
struct LogRecord {
  int64_t sequence = 0;  // of the attempt's lines, from 1
  absl::Time time = absl::UnixEpoch();
  std::string text;
};

// What is kept of one attempt: its last lines, while they are within both.
struct LogLimits {
  int64_t lines = 10'000;
  int64_t bytes = int64_t{4} << 20;
};

// Lines to be added, with rising sequences; those that are there already are ignored.
struct LogAppend {
  std::string job;
  int32_t attempt = 0;
  std::vector<LogRecord> lines;
  LogLimits keep;
};

// What became of them.
struct LogAppended {
  int64_t last_sequence = 0;  // of the attempt
  int64_t added = 0;
  int64_t missing = 0;  // sequences left out before and between the added lines
};

// Lines of an attempt with sequence > after, at most `limit`.
struct LogQuery {
  std::string job;
  int32_t attempt = 0;
  int64_t after = 0;
  int limit = 256;
};

}  // namespace latentforge::service
