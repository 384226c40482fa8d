#include "service/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/unique_fd.h"

namespace latentforge::service {
namespace {

absl::Status Wrong(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(
      "listen address \"", text, "\" ", why, "; expected host:port, [ipv6]:port or unix:/path"));
}

absl::StatusOr<ListenAddress> ParseUnix(absl::string_view text, absl::string_view path) {
  if (!absl::StartsWith(path, "/")) return Wrong(text, "has no absolute path");
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    return Wrong(text, absl::StrCat("has a path of ", path.size(), " bytes, the system allows ",
                                    sizeof(sockaddr_un::sun_path) - 1));
  }
  ListenAddress address;
  address.text = std::string(text);
  address.unix_path = std::string(path);
  return address;
}

}  // namespace

bool ListenAddress::is_local() const {
  return !unix_path.empty() || host == "localhost" || host == "::1" ||
         absl::StartsWith(host, "127.");
}

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text) {
  absl::string_view path = text;
  if (absl::ConsumePrefix(&path, "unix:")) return ParseUnix(text, path);
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) return Wrong(text, "has no port");
  ListenAddress address;
  address.text = std::string(text);
  absl::string_view host = text.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) {
    if (!absl::ConsumeSuffix(&host, "]")) return Wrong(text, "has an open bracket");
  } else if (absl::StrContains(host, ":")) {
    return Wrong(text, "has an IPv6 address without brackets");
  }
  if (host.empty()) return Wrong(text, "has no host");
  address.host = std::string(host);
  const absl::string_view port = text.substr(colon + 1);
  if (!absl::SimpleAtoi(port, &address.port) || address.port < 0 || address.port > 65535)
    return Wrong(text, absl::StrCat("has port \"", port, "\""));
  return address;
}

namespace {

absl::Status InUse(const ListenAddress& address) {
  return absl::AlreadyExistsError(
      absl::StrCat(address.text, " is in use: another process listens there"));
}

// Tries to bind what gRPC is going to bind. Other errors than a taken port are gRPC's to
// find: it manages with some of the addresses of a name.
absl::Status CheckPortNotTaken(const ListenAddress& address) {
  if (address.port == 0) return absl::OkStatus();
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const std::string port = absl::StrCat(address.port);
  if (getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found) != 0) return absl::OkStatus();
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list(found, &freeaddrinfo);
  for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
    const UniqueFd fd(socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (!fd.valid() || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0)
      continue;
    if (bind(fd.get(), one->ai_addr, one->ai_addrlen) != 0 && errno == EADDRINUSE)
      return InUse(address);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckNotTaken(const ListenAddress& address) {
  if (address.unix_path.empty()) return CheckPortNotTaken(address);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoStatus(errno, "open a socket for", address.unix_path);
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::copy(address.unix_path.begin(), address.unix_path.end(), name.sun_path);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0)
    return absl::OkStatus();
  return InUse(address);
}

}  // namespace latentforge::service
