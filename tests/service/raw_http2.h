// HTTP/2 by hand, for what no client library would send.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/unique_fd.h"

namespace latentforge::service {

inline constexpr char kHttp2Preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum class Frame : uint8_t { kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6 };

// One frame.
inline std::string FrameOf(Frame type, uint8_t flags, uint32_t stream, absl::string_view payload) {
  std::string frame;
  for (const int shift : {16, 8, 0}) frame += static_cast<char>(payload.size() >> shift);
  frame += static_cast<char>(type);
  frame += static_cast<char>(flags);
  for (const int shift : {24, 16, 8, 0}) frame += static_cast<char>(stream >> shift);
  frame.append(payload.data(), payload.size());
  return frame;
}

// The headers of a gRPC call, in HPACK without compression.
inline std::string CallHeaders(const std::string& path) {
  const auto text = [](const std::string& value) {
    return static_cast<char>(value.size()) + value;
  };
  const auto literal = [&](const std::string& name, const std::string& value) {
    return std::string(1, '\0') + text(name) + text(value);
  };
  return literal(":method", "POST") + literal(":scheme", "http") + literal(":path", path) +
         literal(":authority", "localhost") + literal("content-type", "application/grpc") +
         literal("te", "trailers");
}

// A connection to a Unix socket.
class RawConnection {
 public:
  explicit RawConnection(const std::string& path)
      : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::copy(path.begin(), path.end(), name.sun_path);
    if (connect(fd_.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)) != 0) fd_ = UniqueFd();
  }

  bool open() const { return fd_.get() >= 0; }

  // Sends everything, and drops what comes meanwhile. False when the peer has closed.
  bool Send(absl::string_view bytes) {
    while (!bytes.empty()) {
      pollfd ready = {fd_.get(), POLLIN | POLLOUT, 0};
      if (poll(&ready, 1, 10'000) <= 0) return false;
      if ((ready.revents & POLLIN) != 0 && !Drop()) return false;
      if ((ready.revents & POLLOUT) == 0) continue;
      const ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno != EAGAIN) return false;
      if (sent > 0) bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // True when the peer closes within this time.
  bool AwaitClose(absl::Duration timeout) {
    const absl::Duration deadline = RealClock().Monotonic() + timeout;
    while (RealClock().Monotonic() < deadline) {
      pollfd ready = {fd_.get(), POLLIN, 0};
      if (poll(&ready, 1, 100) > 0 && !Drop()) return true;
    }
    return false;
  }

 private:
  bool Drop() {
    char bytes[65536];
    return recv(fd_.get(), bytes, sizeof(bytes), 0) > 0;
  }

  UniqueFd fd_;
};

}  // namespace latentforge::service
