#include "service/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::service {
namespace {

// A peer that does not acknowledge data for this long is gone: it would hold writes up.
constexpr int kUserTimeoutMs = 20'000;

absl::Status CannotListen(const std::string& text, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", text, ": ", why));
}

absl::Status CannotListen(const std::string& text, int error) {
  return CannotListen(text, absl::string_view(std::strerror(error)));
}

// `text` is for errors.
absl::StatusOr<UniqueFd> Bind(const std::string& text, int family, const sockaddr* name,
                              socklen_t length) {
  UniqueFd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return CannotListen(text, errno);
  if (family != AF_UNIX) {
    const int on = 1;
    // What a connection inherits from its listener; a kernel without one does without.
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs, sizeof(kUserTimeoutMs));
    // "::" must not take the port of "0.0.0.0" too, which may be another listener.
    if (family == AF_INET6) setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  }
  if (bind(fd.get(), name, length) != 0 || listen(fd.get(), SOMAXCONN) != 0) {
    return CannotListen(text, errno);
  }
  return fd;
}

absl::StatusOr<int> PortOf(const UniqueFd& fd, const std::string& text) {
  sockaddr_storage name = {};
  socklen_t length = sizeof(name);
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &length) != 0) {
    return CannotListen(text, errno);
  }
  return ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&name)->sin6_port
                                          : reinterpret_cast<const sockaddr_in*>(&name)->sin_port);
}

absl::StatusOr<std::vector<UniqueFd>> BindAll(const ListenAddress& address, int& port) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(address.host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (error != 0) return CannotListen(address.text, gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list(found, &freeaddrinfo);
  std::vector<UniqueFd> bound;
  absl::Status failure;
  for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
    // All on the port that the first one got.
    sockaddr_storage name = {};
    std::memcpy(&name, one->ai_addr, one->ai_addrlen);
    (one->ai_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&name)->sin6_port
                                : reinterpret_cast<sockaddr_in*>(&name)->sin_port) =
        htons(static_cast<uint16_t>(port));
    auto fd = Bind(address.text, one->ai_family, reinterpret_cast<const sockaddr*>(&name),
                   one->ai_addrlen);
    if (!fd.ok()) {
      failure.Update(fd.status());  // a machine without IPv6 still has "localhost"
      continue;
    }
    LF_ASSIGN_OR_RETURN(port, PortOf(*fd, address.text));
    bound.push_back(*std::move(fd));
  }
  if (bound.empty()) return failure;
  return bound;
}

absl::StatusOr<UniqueFd> BindUnix(const ListenAddress& address) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::copy(address.unix_path.begin(), address.unix_path.end(), name.sun_path);
  unlink(address.unix_path.c_str());  // of a server that was killed: nobody answers there
  return Bind(address.text, AF_UNIX, reinterpret_cast<const sockaddr*>(&name), sizeof(name));
}

}  // namespace

absl::StatusOr<ListenSocket> ListenSocket::Open(const ListenAddress& address) {
  LF_RETURN_IF_ERROR(CheckNotTaken(address));
  ListenSocket socket;
  socket.text_ = address.text;
  if (!address.unix_path.empty()) {
    LF_ASSIGN_OR_RETURN(UniqueFd fd, BindUnix(address));
    socket.descriptors_.push_back(std::move(fd));
    socket.unix_path_ = address.unix_path;
    return socket;
  }
  int port = address.port;
  LF_ASSIGN_OR_RETURN(socket.descriptors_, BindAll(address, port));
  socket.text_ = absl::StrCat(address.text.substr(0, address.text.rfind(':')), ":", port);
  return socket;
}

ListenSocket::~ListenSocket() {
  if (!descriptors_.empty() && !unix_path_.empty()) unlink(unix_path_.c_str());
}

}  // namespace latentforge::service
