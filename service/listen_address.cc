#include "service/listen_address.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

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

absl::Status CheckNotTaken(const ListenAddress& address) {
  if (address.unix_path.empty()) return absl::OkStatus();
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoStatus(errno, "open a socket for", address.unix_path);
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::copy(address.unix_path.begin(), address.unix_path.end(), name.sun_path);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0)
    return absl::OkStatus();
  return absl::AlreadyExistsError(
      absl::StrCat(address.text, " is in use: another process listens there"));
}

}  // namespace latentforge::service
