#include "client/terminal.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace latentforge::client {
namespace {

bool NamesUtf8(const GetEnvironment& environment) {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::optional<std::string> value = environment(name);
    if (!value.has_value() || value->empty()) continue;
    const std::string lower = absl::AsciiStrToLower(*value);
    return absl::StrContains(lower, "utf-8") || absl::StrContains(lower, "utf8");
  }
  return false;
}

}  // namespace

std::optional<std::string> GetProcessEnvironment(const char* name) {
  const char* value = getenv(name);
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

FdTerminal::FdTerminal(int fd, const GetEnvironment& environment) : fd_(fd) {
  const std::string term = environment("TERM").value_or("");
  interactive_ = isatty(fd) == 1 && !term.empty() && term != "dumb";
  // no-color.org: set to anything but the empty text.
  color_ = interactive_ && environment("NO_COLOR").value_or("").empty();
  unicode_ = NamesUtf8(environment);
}

int FdTerminal::columns() const {
  winsize size = {};
  if (ioctl(fd_, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return std::max<int>(20, size.ws_col);
}

void FdTerminal::Write(absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd_, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // nobody reads progress any more; the work goes on
    text.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace latentforge::client
