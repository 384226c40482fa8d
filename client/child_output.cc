#include "client/child_output.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include <cstddef>

namespace latentforge::client {
namespace {

constexpr size_t kMostOutput = size_t{16} << 20;
constexpr size_t kLongestLine = size_t{1} << 20;
constexpr int kTickMilliseconds = 100;

// Reads once; false at the end of the stream.
bool ReadInto(int fd, std::string* text) {
  char buffer[16384];
  const ssize_t count = read(fd, buffer, sizeof(buffer));
  if (count < 0) return errno == EINTR || errno == EAGAIN;
  text->append(buffer, static_cast<size_t>(count));
  return count > 0;
}

void TakeLines(std::string* pending, const std::function<void(const std::string&)>& on_line) {
  size_t start = 0;
  for (size_t end; (end = pending->find('\n', start)) != std::string::npos; start = end + 1) {
    on_line(pending->substr(start, end - start));
  }
  pending->erase(0, start);
  if (pending->size() > kLongestLine) pending->clear();
}

}  // namespace

std::string ReadChildOutput(ChildProcess& child,
                            const std::function<void(const std::string&)>& on_error_line,
                            const std::function<void()>& on_tick) {
  std::string output;
  std::string pending;
  pollfd fds[2] = {{child.output_fd(), POLLIN, 0}, {child.error_fd(), POLLIN, 0}};
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    on_tick();
    if (poll(fds, 2, kTickMilliseconds) <= 0) continue;
    if (fds[0].revents != 0) {
      if (!ReadInto(fds[0].fd, &output)) fds[0].fd = -1;
      if (output.size() > kMostOutput) output.resize(kMostOutput);
    }
    if (fds[1].revents != 0) {
      if (!ReadInto(fds[1].fd, &pending)) fds[1].fd = -1;
      TakeLines(&pending, on_error_line);
    }
  }
  if (!pending.empty()) on_error_line(pending);
  return output;
}

}  // namespace latentforge::client
