// How a caller of the API shows who it is, and makes sure whom it talks to.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"

namespace latentforge {

// A plain value; nothing set means a connection in the clear.
struct ChannelSecurity {
  std::filesystem::path ca;           // who vouches for the server (PEM); empty: the system's list
  std::filesystem::path certificate;  // the caller's own (PEM)
  std::filesystem::path key;
  std::filesystem::path token_file;  // holds the token alone
  std::string server_name;           // of the server's certificate; empty: that of the address

  bool empty() const {
    return ca.empty() && certificate.empty() && key.empty() && token_file.empty() &&
           server_name.empty();
  }
};

// Credentials for a channel to `address`, "host:port" or "unix:/path". A Unix socket needs
// none, and whatever is set is left aside. Otherwise anything that is set means TLS: a
// token never travels in the clear. Certificates are read again every minute and the token
// for each call, so that both can be replaced. InvalidArgument and the errors of ReadFile
// name the flag of the programs (--tls-ca, --token-file) and the file; nothing quotes a token.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const std::string& address, const ChannelSecurity& security, grpc::ChannelArguments& arguments);

// True of gRPC's message when somebody accepts connections at the address and closes them at once,
// as a server with TLS does with those in the clear.
bool ClosesConnections(absl::string_view message);

// What to do then.
inline constexpr char kTlsHint[] =
    "if the server has TLS, say who vouches for it, --tls-ca, and who you are, --token-file";

}  // namespace latentforge
