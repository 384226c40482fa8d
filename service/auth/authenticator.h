// Finds out who calls, from what a call brings along.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "service/auth/caller.h"
#include "service/auth/token_file.h"

namespace latentforge::service {

// How a call reached the server.
enum class Transport {
  kUnixSocket,  // the file's mode decides who can connect
  kLoopback,    // in the clear, from this machine
  kTls,
};

// What a call brings along.
struct Credentials {
  Transport transport = Transport::kTls;
  std::vector<std::string> authorization;  // values of that header
  // Of the client's certificate, which TLS has verified.
  std::vector<std::string> certificate_uris;
  std::string certificate_name;  // common name
};

// UNAUTHENTICATED with reason CREDENTIALS_MISSING, TOKEN_INVALID, TOKEN_EXPIRED or
// CERTIFICATE_NOT_KNOWN, or UNAVAILABLE when a token's key is just being fetched.
using VerifyWebToken = std::function<absl::StatusOr<Caller>(absl::string_view token)>;

// A token decides, else a certificate. A call with neither is this machine's user when it
// comes through a Unix socket, or over loopback where nothing is set up to tell callers
// apart. Safe for concurrent use. Borrows the file.
class Authenticator {
 public:
  // Without a token file (nullptr) or a verifier (empty) nobody is known by it.
  Authenticator(TokenFile* tokens, VerifyWebToken verify)
      : tokens_(tokens), verify_(std::move(verify)) {}

  absl::StatusOr<Caller> Authenticate(const Credentials& credentials) const;

  // The same errors when what Authenticate found is true no more: for calls that last.
  absl::Status CheckStillValid(const Caller& caller, absl::Time now) const;

 private:
  absl::StatusOr<Caller> FromHeader(const std::vector<std::string>& values) const;
  absl::StatusOr<Caller> FromCertificate(const Credentials& credentials) const;
  bool knows_callers() const { return tokens_ != nullptr || verify_ != nullptr; }

  TokenFile* const tokens_;
  const VerifyWebToken verify_;
};

}  // namespace latentforge::service
