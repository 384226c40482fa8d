#include "client/child_output.h"

#include <cstddef>

#include "base/status_macros.h"

namespace latentforge::client {
namespace {

constexpr size_t kMostOutput = size_t{16} << 20;
constexpr size_t kLongestLine = size_t{1} << 20;
constexpr absl::Duration kTick = absl::Milliseconds(100);

void TakeLines(std::string* pending, const std::function<void(const std::string&)>& on_line) {
  size_t start = 0;
  for (size_t end; (end = pending->find('\n', start)) != std::string::npos; start = end + 1) {
    on_line(pending->substr(start, end - start));
  }
  pending->erase(0, start);
  if (pending->size() > kLongestLine) pending->clear();
}

}  // namespace

absl::StatusOr<std::string> ReadChildOutput(
    ChildProcess& child, const std::function<void(const std::string&)>& on_error_line,
    const std::function<void()>& on_tick) {
  ChildOutput output;
  while (!child.finished()) {
    on_tick();
    LF_RETURN_IF_ERROR(child.Poll(-1, kTick, &output));
    if (output.out.size() > kMostOutput) output.out.resize(kMostOutput);
    TakeLines(&output.err, on_error_line);
  }
  if (!output.err.empty()) on_error_line(output.err);
  return std::move(output.out);
}

}  // namespace latentforge::client
