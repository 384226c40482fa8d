#include "service/auth/gatekeeper.h"

#include "absl/strings/match.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "service/auth/https_fetch.h"

namespace latentforge::service {
namespace {

constexpr int64_t kMaxKeySetBytes = 1 << 20;

// Where the provider's keys come from. A file must be usable now: nobody else mends it.
absl::StatusOr<KeyRing::Fetch> KeySource(const OidcOptions& oidc) {
  if (absl::StartsWith(oidc.jwks, "https://")) {
    return KeyRing::Fetch([url = oidc.jwks, options = FetchOptions{.ca_file = oidc.ca_file}] {
      return FetchHttps(url, options);
    });
  }
  const auto read = [path = oidc.jwks] { return ReadFile(path, kMaxKeySetBytes); };
  LF_ASSIGN_OR_RETURN(const std::string text, read());
  LF_RETURN_IF_ERROR(Annotate(KeySet::Parse(text).status(), oidc.jwks));
  return KeyRing::Fetch(read);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Gatekeeper>> Gatekeeper::Open(
    const std::filesystem::path& token_file, const OidcOptions& oidc, const Clock& clock) {
  std::unique_ptr<Gatekeeper> keeper(new Gatekeeper());
  if (!token_file.empty()) {
    LF_ASSIGN_OR_RETURN(keeper->tokens_, TokenFile::Open(token_file, clock));
  }
  VerifyWebToken verify;
  if (!oidc.issuer.empty()) {
    LF_ASSIGN_OR_RETURN(KeyRing::Fetch source, KeySource(oidc));
    keeper->keys_ = std::make_unique<KeyRing>(std::move(source), KeyRing::Intervals(), clock);
    keeper->verifier_ = std::make_unique<WebTokenVerifier>(oidc, *keeper->keys_, clock);
    verify = [verifier = keeper->verifier_.get()](absl::string_view token) {
      return verifier->Verify(token);
    };
  }
  keeper->authenticator_.emplace(keeper->tokens_.get(), std::move(verify));
  return keeper;
}

std::set<std::string> Gatekeeper::ListedTenants() const {
  return tokens_ == nullptr ? std::set<std::string>() : tokens_->Current()->Tenants();
}

}  // namespace latentforge::service
