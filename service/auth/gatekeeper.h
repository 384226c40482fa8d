// Everything that a server's Authenticator stands on.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "service/auth/authenticator.h"
#include "service/auth/key_ring.h"
#include "service/auth/oidc_options.h"
#include "service/auth/token_file.h"
#include "service/auth/web_token.h"

namespace latentforge::service {

// Safe for concurrent use. Borrows the clock.
class Gatekeeper {
 public:
  // An empty path or issuer means there is none. The errors of TokenFile::Open; those of a
  // key set in a file. A key set's URL may be away for now. The process must ignore SIGPIPE.
  static absl::StatusOr<std::unique_ptr<Gatekeeper>> Open(const std::filesystem::path& token_file,
                                                          const OidcOptions& oidc,
                                                          const Clock& clock);

  const Authenticator& authenticator() const { return *authenticator_; }

  // Whose jobs the token file lets callers submit.
  std::set<std::string> ListedTenants() const;

 private:
  Gatekeeper() = default;

  std::unique_ptr<TokenFile> tokens_;
  std::unique_ptr<KeyRing> keys_;
  std::unique_ptr<WebTokenVerifier> verifier_;
  std::optional<Authenticator> authenticator_;
};

}  // namespace latentforge::service
