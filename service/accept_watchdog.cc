#include "service/accept_watchdog.h"

#include <netdb.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "service/listen_address.h"

namespace latentforge::service {
namespace {

// RFC 9113, 3.4: the connection preface, and an empty SETTINGS frame.
constexpr absl::string_view kHttp2Hello("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 33);

// As a gRPC client's; empty where OpenSSL has no memory.
std::string TlsHello() {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()),
                                                                  &SSL_CTX_free);
  if (context == nullptr) return "";
  constexpr unsigned char kProtocols[] = {2, 'h', '2'};
  SSL_CTX_set_alpn_protos(context.get(), kProtocols, sizeof(kProtocols));
  const std::unique_ptr<SSL, decltype(&SSL_free)> tls(SSL_new(context.get()), &SSL_free);
  BIO* const in = BIO_new(BIO_s_mem());
  BIO* const out = BIO_new(BIO_s_mem());
  if (tls == nullptr || in == nullptr || out == nullptr) {
    BIO_free(in);
    BIO_free(out);
    return "";
  }
  SSL_set_bio(tls.get(), in, out);  // which owns both from now on
  SSL_connect(tls.get());           // as far as it comes without an answer
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(out, &bytes);
  return std::string(bytes, static_cast<size_t>(std::max(size, 0L)));
}

absl::Status NoSocket(int error) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the watchdog cannot open a socket: ", std::strerror(error)));
}

// EAGAIN: a Unix socket's queue is full, because nobody takes from it.
absl::Status NoConnection(const ListenAddress& address, int error) {
  return absl::DeadlineExceededError(
      absl::StrCat("no connection to ", address.text, ": ", std::strerror(error)));
}

// 0, EINPROGRESS, or why not.
int Connect(const UniqueFd& fd, const sockaddr* name, socklen_t length) {
  return connect(fd.get(), name, length) == 0 ? 0 : errno;
}

absl::StatusOr<UniqueFd> Dial(const ListenAddress& address) {
  const auto open = [](int family) {
    return UniqueFd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  };
  int error = 0;
  if (!address.unix_path.empty()) {
    UniqueFd fd = open(AF_UNIX);
    if (!fd.valid()) return NoSocket(errno);
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::copy(address.unix_path.begin(), address.unix_path.end(), name.sun_path);
    error = Connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof(name));
    if (error == 0) return fd;
  } else {
    addrinfo hints = {};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found) != 0)
      return NoSocket(EMFILE);  // its files could not be read: the address was resolved before
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list(found, &freeaddrinfo);
    UniqueFd fd = open(list->ai_family);
    if (!fd.valid()) return NoSocket(errno);
    error = Connect(fd, list->ai_addr, list->ai_addrlen);
    if (error == 0 || error == EINPROGRESS) return fd;
  }
  return NoConnection(address, error);
}

// True: what was waited for, or an error, is there. The deadline is of the monotonic clock.
bool WaitFor(const UniqueFd& fd, short events, absl::Duration deadline) {
  pollfd waiting = {.fd = fd.get(), .events = events, .revents = 0};
  while (true) {
    const auto left = absl::ToInt64Milliseconds(deadline - RealClock().Monotonic());
    const int ready = poll(&waiting, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

}  // namespace

absl::Status ProbeListener(const std::string& address, Wire wire, absl::Duration timeout) {
  const absl::Duration deadline = RealClock().Monotonic() + timeout;
  LF_ASSIGN_OR_RETURN(const ListenAddress parsed, ParseListenAddress(address));
  LF_ASSIGN_OR_RETURN(const UniqueFd fd, Dial(parsed));
  const bool connected = WaitFor(fd, POLLOUT, deadline);
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) return NoConnection(parsed, error);
  // A connection that was closed before the words are out was accepted too.
  const std::string hello = wire == Wire::kTls ? TlsHello() : std::string(kHttp2Hello);
  const bool heard = connected && (send(fd.get(), hello.data(), hello.size(), MSG_NOSIGNAL) < 0 ||
                                   WaitFor(fd, POLLIN, deadline));
  if (heard) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat(
      "a new connection to ", address, " got no answer in ", absl::FormatDuration(timeout)));
}

AcceptWatchdog::AcceptWatchdog(std::string address, WatchdogOptions options,
                               std::function<void(const absl::Status&)> give_up)
    : address_(std::move(address)),
      options_(options),
      give_up_(std::move(give_up)),
      thread_([this] { Run(); }) {}

AcceptWatchdog::~AcceptWatchdog() {
  stopping_.Set();
  thread_.join();
}

void AcceptWatchdog::Run() {
  int failures = 0;
  while (failures < options_.failures && !stopping_.WaitFor(options_.interval)) {
    const absl::Status answered = ProbeListener(address_, options_.wire, options_.timeout);
    if (answered.ok()) failures = 0;
    if (!absl::IsDeadlineExceeded(answered)) continue;
    ++failures;
    Log(Severity::kWarning, std::string(answered.message()),
        {{"failures", absl::StrCat(failures, " of ", options_.failures)}});
    if (failures == options_.failures) give_up_(answered);
  }
}

}  // namespace latentforge::service
