// What a line of a log becomes before it is stored.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace latentforge::service {

// The line as valid UTF-8 that steers no terminal: bytes of control characters (but tabs) and
// those that are not UTF-8 become \xHH. At most 4 KiB, and then "[... cut]" when there was
// more, or when `truncated` says so. Pure.
std::string LogText(absl::string_view line, bool truncated);

}  // namespace latentforge::service
