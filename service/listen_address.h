// Addresses to listen on: "host:port" and "unix:/path".
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::service {

struct ListenAddress {
  std::string text;       // as gRPC takes it
  std::string unix_path;  // empty for TCP
  std::string host;       // empty for a Unix socket
  int port = 0;           // 0: the kernel chooses

  // Only processes of this machine can connect.
  bool is_local() const;
};

// InvalidArgument names the text and what is expected.
absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text);

// AlreadyExists when a process answers on the Unix socket (gRPC would take it
// away silently) or listens on the port (gRPC would write of it into stderr).
absl::Status CheckNotTaken(const ListenAddress& address);

}  // namespace latentforge::service
