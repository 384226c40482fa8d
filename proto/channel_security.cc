#include "proto/channel_security.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace latentforge {
namespace {

constexpr unsigned kRefreshSeconds = 60;
constexpr int64_t kMaxTokenBytes = 16 << 10;
constexpr int64_t kMaxPemBytes = 16 << 20;  // a system's list of authorities is far smaller

absl::StatusOr<std::string> ReadToken(const std::filesystem::path& path) {
  LF_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxTokenBytes));
  const absl::string_view token = absl::StripAsciiWhitespace(text);
  const bool one_word = !token.empty() && std::all_of(token.begin(), token.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c));
  });
  if (one_word) return std::string(token);
  return absl::InvalidArgumentError(absl::StrCat(path.string(), " holds ",
                                                 token.empty() ? "nothing" : "more than one word",
                                                 ", expected a token alone"));
}

absl::Status CheckPem(absl::string_view flag, const std::filesystem::path& path,
                      absl::string_view what) {
  if (path.empty()) return absl::OkStatus();
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxPemBytes);
  if (!text.ok()) return Annotate(text.status(), flag);
  if (absl::StrContains(*text, absl::StrCat(what, "-----"))) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", path.string(), " holds no ",
                                                 absl::AsciiStrToLower(what), " in PEM"));
}

class TokenPlugin final : public grpc::MetadataCredentialsPlugin {
 public:
  explicit TokenPlugin(std::filesystem::path path) : path_(std::move(path)) {}

  grpc::Status GetMetadata(grpc::string_ref /*service_url*/, grpc::string_ref /*method*/,
                           const grpc::AuthContext& /*channel*/,
                           std::multimap<grpc::string, grpc::string>* metadata) override {
    const absl::StatusOr<std::string> token = ReadToken(path_);
    if (!token.ok())
      return grpc::Status(grpc::StatusCode::UNAUTHENTICATED, std::string(token.status().message()));
    metadata->emplace("authorization", absl::StrCat("Bearer ", *token));
    return grpc::Status::OK;
  }

 private:
  const std::filesystem::path path_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const std::string& address, const ChannelSecurity& security,
    grpc::ChannelArguments& arguments) {
  if (security.empty() || absl::StartsWith(address, "unix:"))
    return grpc::InsecureChannelCredentials();
  if (security.certificate.empty() != security.key.empty())
    return absl::InvalidArgumentError(
        absl::StrCat("a client certificate needs its key, and a key its certificate: ",
                     security.key.empty() ? "--tls-key" : "--tls-cert", " is missing"));
  LF_RETURN_IF_ERROR(CheckPem("--tls-ca", security.ca, "CERTIFICATE"));
  LF_RETURN_IF_ERROR(CheckPem("--tls-cert", security.certificate, "CERTIFICATE"));
  LF_RETURN_IF_ERROR(CheckPem("--tls-key", security.key, "PRIVATE KEY"));
  grpc::experimental::TlsChannelCredentialsOptions options;
  if (!security.ca.empty() || !security.key.empty())
    options.set_certificate_provider(
        std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
            security.key.string(), security.certificate.string(), security.ca.string(),
            kRefreshSeconds));
  if (!security.ca.empty()) options.watch_root_certs();
  if (!security.key.empty()) options.watch_identity_key_cert_pairs();
  if (!security.server_name.empty()) arguments.SetSslTargetNameOverride(security.server_name);
  std::shared_ptr<grpc::ChannelCredentials> credentials =
      grpc::experimental::TlsCredentials(options);
  if (security.token_file.empty()) return credentials;
  // Now, so that a wrong file is told by its name rather than by a call that fails.
  LF_RETURN_IF_ERROR(Annotate(ReadToken(security.token_file).status(), "--token-file"));
  return grpc::CompositeChannelCredentials(
      credentials,
      grpc::MetadataCredentialsFromPlugin(std::make_unique<TokenPlugin>(security.token_file)));
}

bool ClosesConnections(absl::string_view message) {
  return absl::StrContains(message, "failed to connect") &&
         absl::StrContains(message, "Socket closed");
}

}  // namespace latentforge
