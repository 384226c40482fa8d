#include "service/connection_acceptor.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"

namespace latentforge::service {
namespace {

constexpr int kReserve = 256;
constexpr absl::Duration kWarningInterval = absl::Minutes(1);

// The peer went away, or a signal came: the next connection may be fine.
bool IsOfOneConnection(int error) {
  return error == EINTR || error == ECONNABORTED || error == EPROTO || error == EPERM;
}

}  // namespace

int SuitableDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024 - kReserve;
  const auto most = static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, 1 << 30));
  return static_cast<int>(std::max(most - kReserve, most / 2));
}

ConnectionAcceptor::ConnectionAcceptor(ListenSocket socket, AcceptorOptions options,
                                       std::function<void(UniqueFd)> serve)
    : socket_(std::move(socket)),
      options_(options),
      serve_(std::move(serve)),
      stop_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      thread_([this] { Run(); }) {}

ConnectionAcceptor::~ConnectionAcceptor() {
  const uint64_t one = 1;
  // An eventfd's counter takes 2^64 - 2 of these.
  [[maybe_unused]] const ssize_t written = write(stop_.get(), &one, sizeof(one));
  thread_.join();
}

// False: nothing can be accepted at present.
bool ConnectionAcceptor::Accept(int listener) {
  UniqueFd connection(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  const int error = errno;
  if (!connection.valid() && error == EAGAIN) return true;
  if (!connection.valid() && IsOfOneConnection(error)) return true;
  if (connection.valid() && connection.get() < options_.descriptor_limit) {
    serve_(std::move(connection));
    return true;
  }
  if (connection.valid()) ++refused_;
  if (const absl::Time now = absl::Now(); now - last_warning_ > kWarningInterval) {
    last_warning_ = now;
    Log(Severity::kWarning, absl::StrCat("too many connections on ", socket_.text()),
        {{"error", connection.valid() ? "the limit of descriptors" : std::strerror(error)},
         {"limit", absl::StrCat(options_.descriptor_limit)}});
  }
  return connection.valid();
}

void ConnectionAcceptor::Run() {
  std::vector<pollfd> waiting = {{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
  for (const UniqueFd& fd : socket_.descriptors()) {
    waiting.push_back({.fd = fd.get(), .events = POLLIN, .revents = 0});
  }
  const auto pause_ms = static_cast<int>(absl::ToInt64Milliseconds(options_.pause));
  while (true) {
    if (poll(waiting.data(), waiting.size(), -1) < 0) continue;  // a signal
    if (waiting[0].revents != 0) return;
    bool paused = false;
    for (size_t i = 1; i < waiting.size(); ++i) {
      if (waiting[i].revents != 0) paused |= !Accept(waiting[i].fd);
    }
    if (paused) poll(waiting.data(), 1, pause_ms);
  }
}

}  // namespace latentforge::service
