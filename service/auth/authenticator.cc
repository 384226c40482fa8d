#include "service/auth/authenticator.h"

#include <algorithm>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "service/auth/token_errors.h"

namespace latentforge::service {
namespace {

// This machine's user.
Caller LocalCaller() { return {.identity = {"local", kDefaultTenant, Role::kAdmin}}; }

// header.claims.signature, as no token of ours is.
bool IsWebToken(absl::string_view token) {
  return std::count(token.begin(), token.end(), '.') == 2;
}

}  // namespace

absl::StatusOr<Caller> Authenticator::Authenticate(const Credentials& credentials) const {
  const bool local = credentials.transport == Transport::kUnixSocket ||
                     (credentials.transport == Transport::kLoopback && !knows_callers());
  if (!credentials.authorization.empty() && knows_callers())
    return FromHeader(credentials.authorization);
  if (!credentials.certificate_uris.empty() || !credentials.certificate_name.empty())
    return FromCertificate(credentials);
  if (local) return LocalCaller();
  return UnauthenticatedError("CREDENTIALS_MISSING",
                              "the call has neither a token nor a client certificate");
}

absl::StatusOr<Caller> Authenticator::FromHeader(const std::vector<std::string>& values) const {
  absl::string_view token = values.front();
  if (values.size() != 1 || !absl::StartsWithIgnoreCase(token, "bearer ")) {
    return UnauthenticatedError(
        kTokenInvalid, absl::StrCat("the call has ", values.size(),
                                    " authorization headers or another scheme, expected one "
                                    "\"Bearer TOKEN\""));
  }
  token = absl::StripAsciiWhitespace(token.substr(absl::string_view("bearer ").size()));
  if (verify_ != nullptr && IsWebToken(token)) return verify_(token);
  if (tokens_ != nullptr) {
    Caller caller;
    caller.credential = TokenTable::CredentialOf(token);
    const std::shared_ptr<const TokenTable> table = tokens_->Current();
    if (const Identity* found = table->Find(caller.credential); found != nullptr) {
      caller.identity = *found;
      return caller;
    }
  }
  return UnauthenticatedError(kTokenInvalid, "the server does not know the call's token");
}

absl::StatusOr<Caller> Authenticator::FromCertificate(const Credentials& credentials) const {
  std::vector<std::string> names;
  for (const std::string& uri : credentials.certificate_uris)
    names.push_back(absl::StrCat("uri:", uri));
  names.push_back(absl::StrCat("cn:", credentials.certificate_name));
  if (tokens_ != nullptr) {
    const std::shared_ptr<const TokenTable> table = tokens_->Current();
    for (const std::string& name : names) {
      if (const Identity* found = table->Find(name); found != nullptr)
        return Caller{.identity = *found, .credential = name};
    }
  }
  return UnauthenticatedError("CERTIFICATE_NOT_KNOWN",
                              absl::StrCat("the client certificate is that of ", names.front(),
                                           ", expected one that the server's token file names"));
}

absl::Status Authenticator::CheckStillValid(const Caller& caller, absl::Time now) const {
  if (now >= caller.expire_time) return TokenExpiredError(caller.expire_time);
  if (caller.credential.empty()) return absl::OkStatus();
  const std::shared_ptr<const TokenTable> table = tokens_->Current();
  const Identity* const found = table->Find(caller.credential);
  if (found != nullptr && *found == caller.identity) return absl::OkStatus();
  return UnauthenticatedError(kTokenInvalid,
                              "the server does not accept the call's credential any more");
}

}  // namespace latentforge::service
