// Log lines on stderr.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace latentforge {

enum class Severity { kDebug, kInfo, kWarning, kError };

using LogFields = std::vector<std::pair<std::string, std::string>>;

enum class LogFormat { kText, kJson };

// Sets format and lowest severity for the process; call once, early.
void ConfigureLog(LogFormat format, Severity lowest);

// Writes one line with time, severity, message and fields, whatever these hold: as text, values
// that are more than a word are quoted, and control characters escaped. Safe for concurrent use;
// never blocks on anything but stderr.
void Log(Severity severity, absl::string_view message, const LogFields& fields = {});

}  // namespace latentforge
