#include "base/log.h"

#include <algorithm>
#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace latentforge {
namespace {

struct Logger {
  std::shared_ptr<spdlog::logger> sink = spdlog::stderr_logger_mt("latentforge");
  LogFormat format = LogFormat::kText;
};

Logger& Instance() {
  static Logger logger = [] {
    Logger created;
    created.sink->set_pattern("%v");
    created.sink->flush_on(spdlog::level::trace);
    return created;
  }();
  return logger;
}

spdlog::level::level_enum Level(Severity severity) {
  switch (severity) {
    case Severity::kDebug:
      return spdlog::level::debug;
    case Severity::kInfo:
      return spdlog::level::info;
    case Severity::kWarning:
      return spdlog::level::warn;
    case Severity::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

absl::string_view Name(Severity severity) {
  static constexpr absl::string_view kNames[] = {"debug", "info", "warning", "error"};
  return kNames[static_cast<int>(severity)];
}

bool IsControl(char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7F'; }

// Without what would end the line or steer a terminal.
std::string OneLine(absl::string_view text) {
  std::string line;
  for (const char c : text) {
    if (IsControl(c)) {
      absl::StrAppend(&line, absl::CHexEscape(absl::string_view(&c, 1)));
    } else {
      line += c;
    }
  }
  return line;
}

// As it is when it is a word, else in quotes: it cannot be taken for another field.
std::string FieldValue(absl::string_view value) {
  const bool word = std::none_of(value.begin(), value.end(), [](char c) {
    return IsControl(c) || absl::StrContains(" \"=\\", c);
  });
  if (word) return std::string(value);
  return absl::StrCat("\"", OneLine(absl::StrReplaceAll(value, {{"\\", "\\\\"}, {"\"", "\\\""}})),
                      "\"");
}

std::string Format(LogFormat format, Severity severity, absl::string_view message,
                   const LogFields& fields) {
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  if (format == LogFormat::kJson) {
    Json line = {{"time", time},
                 {"severity", std::string(Name(severity))},
                 {"message", std::string(message)}};
    for (const auto& [key, value] : fields) line[key] = value;
    return WriteJson(line);
  }
  std::string line = absl::StrCat(time, " ", Name(severity), " ", OneLine(message));
  for (const auto& [key, value] : fields) absl::StrAppend(&line, " ", key, "=", FieldValue(value));
  return line;
}

}  // namespace

void ConfigureLog(LogFormat format, Severity lowest) {
  Instance().format = format;
  Instance().sink->set_level(Level(lowest));
}

void Log(Severity severity, absl::string_view message, const LogFields& fields) {
  Logger& logger = Instance();
  if (!logger.sink->should_log(Level(severity))) return;
  const std::string line = Format(logger.format, severity, message, fields);
  logger.sink->log(Level(severity), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace latentforge
