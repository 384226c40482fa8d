#include "tests/faults/fault_proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace latentforge::faults {
namespace {

constexpr size_t kMostHeld = size_t{1} << 20;  // of one direction, before it is read no further

struct SocketName {
  sockaddr_storage storage = {};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// Fails the test for what is no address.
SocketName NameOf(absl::string_view address) {
  SocketName name;
  if (absl::ConsumePrefix(&address, "unix:")) {
    auto* unix_name = reinterpret_cast<sockaddr_un*>(&name.storage);
    unix_name->sun_family = AF_UNIX;
    EXPECT_LT(address.size(), sizeof(unix_name->sun_path)) << address;
    address.copy(unix_name->sun_path, sizeof(unix_name->sun_path) - 1);
    name.size = sizeof(sockaddr_un);
    return name;
  }
  const std::pair<std::string, std::string> parts = absl::StrSplit(address, ':');
  auto* ip_name = reinterpret_cast<sockaddr_in*>(&name.storage);
  ip_name->sin_family = AF_INET;
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(parts.second, &port) &&
              inet_pton(AF_INET, parts.first.c_str(), &ip_name->sin_addr) == 1)
      << address;
  ip_name->sin_port = htons(static_cast<uint16_t>(port));
  name.size = sizeof(sockaddr_in);
  return name;
}

UniqueFd MakeSocket(const SocketName& name) {
  return UniqueFd(socket(name.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

bool Interrupted() { return errno == EAGAIN || errno == EINTR; }

}  // namespace

FaultProxy::FaultProxy(const std::string& listen, std::string target)
    : target_address_(std::move(target)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  const SocketName name = NameOf(listen);
  listener_ = MakeSocket(name);
  if (name.storage.ss_family == AF_UNIX) unlink(listen.substr(strlen("unix:")).c_str());
  const int reuse = 1;
  setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
  if (bind(listener_.get(), name.get(), name.size) != 0 || ::listen(listener_.get(), 128) != 0)
    ADD_FAILURE() << "cannot listen on " << listen << ": " << strerror(errno);
  thread_ = std::thread([this] { Run(); });
}

FaultProxy::~FaultProxy() {
  stopping_ = true;
  eventfd_write(wake_.get(), 1);
  thread_.join();
}

void FaultProxy::Set(const Passage& passage) {
  absl::MutexLock lock(&mutex_);
  wanted_ = passage;
  eventfd_write(wake_.get(), 1);
}

void FaultProxy::Cut() {
  absl::MutexLock lock(&mutex_);
  cut_ = true;
  eventfd_write(wake_.get(), 1);
}

void FaultProxy::HalfClose() {
  absl::MutexLock lock(&mutex_);
  half_close_ = true;
  eventfd_write(wake_.get(), 1);
}

// Takes over what was asked for since the last time.
void FaultProxy::Obey() {
  eventfd_t ignored;
  eventfd_read(wake_.get(), &ignored);
  absl::MutexLock lock(&mutex_);
  passage_ = wanted_;
  if (std::exchange(cut_, false)) connections_.clear();
  if (std::exchange(half_close_, false)) {
    for (Connection& connection : connections_) {
      shutdown(connection.target.get(), SHUT_WR);
      connection.requests.chunks.clear();
      connection.requests.ended = connection.requests.finished = true;
    }
  }
  connections_.remove_if([this](const Connection& connection) {
    return (connection.requests.lossy && !passage_.lose_requests) ||
           (connection.answers.lossy && !passage_.lose_answers);
  });
}

void FaultProxy::Accept() {
  UniqueFd caller(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!caller.valid()) return;
  ++accepted_;
  if (passage_.refused) return;
  const SocketName name = NameOf(target_address_);
  UniqueFd target = MakeSocket(name);
  // Nobody there looks to the caller like a connection that ends at once.
  if (connect(target.get(), name.get(), name.size) != 0 && errno != EINPROGRESS) return;
  Connection& connection = connections_.emplace_back();
  connection.caller = std::move(caller);
  connection.target = std::move(target);
}

// False when the connection is broken.
bool FaultProxy::Receive(int from, Stream& stream, absl::Time due, bool lose) {
  char buffer[16384];
  const ssize_t size = read(from, buffer, sizeof(buffer));
  if (size < 0) return Interrupted();
  if (size == 0) {
    stream.ended = true;
  } else if (lose) {
    stream.lossy = true;
  } else {
    stream.chunks.push_back({due, std::string(buffer, static_cast<size_t>(size))});
    stream.held += static_cast<size_t>(size);
  }
  return true;
}

bool FaultProxy::Send(int to, Stream& stream, absl::Time now) {
  while (!stream.chunks.empty() && stream.chunks.front().due <= now) {
    std::string& bytes = stream.chunks.front().bytes;
    const ssize_t size = send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (size < 0) return Interrupted();
    stream.held -= static_cast<size_t>(size);
    bytes.erase(0, static_cast<size_t>(size));
    if (!bytes.empty()) return true;
    stream.chunks.pop_front();
  }
  if (stream.ended && stream.chunks.empty() && !std::exchange(stream.finished, true))
    shutdown(to, SHUT_WR);
  return true;
}

// What to wait for at a socket that `outgoing` comes from and `incoming` goes to.
short FaultProxy::EventsOf(const Stream& outgoing, const Stream& incoming, absl::Time now) const {
  if (passage_.stalled) return 0;
  short events = 0;
  if (!outgoing.ended && outgoing.held < kMostHeld) events |= POLLIN;
  const bool due = incoming.chunks.empty() ? incoming.ended && !incoming.finished
                                           : incoming.chunks.front().due <= now;
  if (due) events |= POLLOUT;
  return events;
}

// False when the connection is over.
bool FaultProxy::Serve(Connection& connection, short caller_events, short target_events) {
  constexpr short kReadable = POLLIN | POLLHUP | POLLERR;
  const absl::Time now = absl::Now();
  const absl::Time due = now + passage_.delay;
  Stream& requests = connection.requests;
  Stream& answers = connection.answers;
  if ((caller_events & kReadable) != 0 && !requests.ended &&
      !Receive(connection.caller.get(), requests, due, passage_.lose_requests))
    return false;
  if ((target_events & kReadable) != 0 && !answers.ended &&
      !Receive(connection.target.get(), answers, due, passage_.lose_answers))
    return false;
  if (!Send(connection.target.get(), requests, now)) return false;
  if (!Send(connection.caller.get(), answers, now)) return false;
  return !(requests.finished && answers.finished);
}

// Until the first held bytes are due; -1 when there are none.
int FaultProxy::Timeout(absl::Time now) const {
  absl::Time next = absl::InfiniteFuture();
  for (const Connection& connection : connections_) {
    for (const Stream* stream : {&connection.requests, &connection.answers}) {
      if (!stream->chunks.empty()) next = std::min(next, stream->chunks.front().due);
    }
  }
  if (passage_.stalled || next == absl::InfiniteFuture()) return -1;
  return static_cast<int>(absl::ToInt64Milliseconds(std::max(next - now, absl::ZeroDuration())) +
                          1);
}

void FaultProxy::Run() {
  std::vector<pollfd> polled;
  while (!stopping_) {
    const absl::Time now = absl::Now();
    polled = {{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    for (const Connection& connection : connections_) {
      const short at_caller = EventsOf(connection.requests, connection.answers, now);
      const short at_target = EventsOf(connection.answers, connection.requests, now);
      // A socket of which nothing is wanted would still tell that its peer has gone, for ever.
      polled.push_back({at_caller == 0 ? -1 : connection.caller.get(), at_caller, 0});
      polled.push_back({at_target == 0 ? -1 : connection.target.get(), at_target, 0});
    }
    if (poll(polled.data(), polled.size(), Timeout(now)) < 0) continue;
    // First: what was asked for before a byte was sent holds for that byte.
    if (polled[0].revents != 0) {
      Obey();
      continue;
    }
    size_t next = 2;
    for (auto it = connections_.begin(); it != connections_.end(); next += 2) {
      const bool stays =
          passage_.stalled || Serve(*it, polled[next].revents, polled[next + 1].revents);
      it = stays ? std::next(it) : connections_.erase(it);
    }
    if (polled[1].revents != 0) Accept();
  }
}

}  // namespace latentforge::faults
