// Sockets that listen on an address.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "service/listen_address.h"

namespace latentforge::service {

// Listens while it lives, and takes a Unix socket's file away afterwards. Movable.
class ListenSocket {
 public:
  // Binds every address that the host name has; port 0 becomes one that is free on all of them.
  // AlreadyExists when a process listens there; Unavailable names the address and what the system
  // said of it.
  static absl::StatusOr<ListenSocket> Open(const ListenAddress& address);

  ListenSocket(ListenSocket&& other) noexcept = default;
  ListenSocket& operator=(ListenSocket&&) = delete;
  ~ListenSocket();

  // Not blocking; at least one.
  const std::vector<UniqueFd>& descriptors() const { return descriptors_; }
  // As ListenAddress::text, with the real port.
  const std::string& text() const { return text_; }

 private:
  ListenSocket() = default;

  std::vector<UniqueFd> descriptors_;
  std::string text_;
  std::string unix_path_;
};

}  // namespace latentforge::service
