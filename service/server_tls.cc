#include "service/server_tls.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <map>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "grpcpp/security/auth_metadata_processor.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"
#include "service/auth/access.h"
#include "service/call_credentials.h"

namespace latentforge::service {
namespace {

constexpr unsigned kRefreshSeconds = 1;
constexpr int64_t kMaxBytes = 1 << 20;

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};

absl::Status Wrong(const std::filesystem::path& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path.string(), " ", what));
}

absl::StatusOr<std::unique_ptr<X509, Free>> ReadCertificate(const std::filesystem::path& path) {
  LF_ASSIGN_OR_RETURN(const std::string pem, ReadFile(path, kMaxBytes));
  const std::unique_ptr<BIO, Free> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  std::unique_ptr<X509, Free> certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) return Wrong(path, "holds no certificate in PEM");
  return certificate;
}

absl::StatusOr<std::unique_ptr<EVP_PKEY, Free>> ReadKey(const std::filesystem::path& path) {
  LF_ASSIGN_OR_RETURN(const std::string pem, ReadFile(path, kMaxBytes));
  const std::unique_ptr<BIO, Free> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  // A key that is encrypted is answered with an empty password, not with a question.
  const auto no_password = [](char*, int, int, void*) { return 0; };
  std::unique_ptr<EVP_PKEY, Free> key(
      PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  if (key == nullptr) return Wrong(path, "holds no private key in PEM without a password");
  return key;
}

// Guards the services that gRPC itself brings along, which make no RpcCall. Ours answer for
// themselves, with more detail than fits through here.
class ForeignCallGuard final : public grpc::AuthMetadataProcessor {
 public:
  explicit ForeignCallGuard(const Authenticator& authenticator) : authenticator_(authenticator) {}

  bool IsBlocking() const override { return false; }

  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* security,
                       OutputMetadata* /*consumed*/, OutputMetadata* /*response*/) override {
    const auto header = metadata.find(":path");
    absl::string_view path = header == metadata.end()
                                 ? absl::string_view()
                                 : absl::string_view(header->second.data(), header->second.size());
    absl::ConsumePrefix(&path, "/");
    const absl::string_view service = path.substr(0, path.rfind('/'));
    const absl::string_view method = absl::StripPrefix(path.substr(service.size()), "/");
    const MethodAccess* const access = FindAccess(service, method);
    if (absl::StartsWith(service, "latentforge.v1.") || (access != nullptr && access->anyone))
      return grpc::Status::OK;
    const absl::Status admitted = Admit(CredentialsOf(metadata, *security, ""), service, method);
    return grpc::Status(static_cast<grpc::StatusCode>(admitted.code()),
                        std::string(admitted.message()));
  }

 private:
  absl::Status Admit(const Credentials& credentials, absl::string_view service,
                     absl::string_view method) const {
    LF_ASSIGN_OR_RETURN(const Caller caller, authenticator_.Authenticate(credentials));
    return Authorize(caller.identity, service, method);
  }

  const Authenticator& authenticator_;
};

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& files) {
  LF_ASSIGN_OR_RETURN(const auto certificate, ReadCertificate(files.certificate));
  LF_ASSIGN_OR_RETURN(const auto key, ReadKey(files.key));
  if (X509_check_private_key(certificate.get(), key.get()) != 1)
    return Wrong(files.key,
                 absl::StrCat("is not the key of the certificate in ", files.certificate.string()));
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) <= 0)
    return Wrong(files.certificate, "has expired: no client would accept it");
  if (files.client_ca.empty()) return absl::OkStatus();
  return ReadCertificate(files.client_ca).status();
}

std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(const TlsFiles& files,
                                                            const Authenticator& authenticator) {
  const auto provider = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      files.key.string(), files.certificate.string(), files.client_ca.string(), kRefreshSeconds);
  grpc::experimental::TlsServerCredentialsOptions options(provider);
  options.watch_identity_key_cert_pairs();
  if (!files.client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  std::shared_ptr<grpc::ServerCredentials> credentials =
      grpc::experimental::TlsServerCredentials(options);
  credentials->SetAuthMetadataProcessor(std::make_shared<ForeignCallGuard>(authenticator));
  return credentials;
}

}  // namespace latentforge::service
