// Certificates that tests make for themselves.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

#include "absl/time/time.h"

namespace latentforge {

// A certificate and its key, as PEM.
struct TestCertificate {
  std::string certificate;
  std::string key;
};

struct CertificateRequest {
  std::string common_name = "localhost";
  // As OpenSSL writes subject alternative names: "DNS:localhost,URI:spiffe://x/y".
  std::string names = "DNS:localhost,IP:127.0.0.1";
  absl::Duration valid_from = -absl::Hours(1);  // from now
  absl::Duration valid_until = absl::Hours(1);
};

// Signs certificates. Not safe for concurrent use.
class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name);

  const std::string& certificate() const { return certificate_; }  // PEM
  TestCertificate Issue(const CertificateRequest& request);

 private:
  struct Free {
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
    void operator()(X509* certificate) const { X509_free(certificate); }
  };
  using Key = std::unique_ptr<EVP_PKEY, Free>;
  using Certificate = std::unique_ptr<X509, Free>;

  static Key MakeKey();
  static std::string Pem(EVP_PKEY* key);
  static std::string Pem(X509* certificate);
  Certificate Make(EVP_PKEY* key, const CertificateRequest& request, const std::string& basics);

  Key key_;
  Certificate own_;
  std::string certificate_;
  long serial_ = 0;
};

}  // namespace latentforge
