// JSON Web Tokens of an OpenID Connect provider.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "service/auth/caller.h"
#include "service/auth/key_ring.h"
#include "service/auth/oidc_options.h"

namespace latentforge::service {

// Accepts RS256 and ES256 with iss, aud, exp and sub, and whatever nbf asks for. Safe for
// concurrent use. Borrows keys and clock.
class WebTokenVerifier {
 public:
  WebTokenVerifier(OidcOptions policy, SigningKeys& keys, const Clock& clock)
      : policy_(std::move(policy)), keys_(keys), clock_(clock) {}

  // UNAUTHENTICATED with reason TOKEN_INVALID or TOKEN_EXPIRED; UNAVAILABLE with reason
  // SIGNING_KEYS_MISSING and a retry delay while the token's key may be under way. Never
  // waits. Messages do not quote the token.
  absl::StatusOr<Caller> Verify(absl::string_view token) const;

 private:
  const OidcOptions policy_;
  SigningKeys& keys_;
  const Clock& clock_;
};

}  // namespace latentforge::service
