#include "tests/service/test_certificates.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "gtest/gtest.h"

namespace latentforge {
namespace {

std::string TakeText(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

void AddExtension(X509* certificate, X509* issuer, int id, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str());
  ASSERT_NE(extension, nullptr) << value;
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

}  // namespace

TestAuthority::TestAuthority(const std::string& name) : key_(MakeKey()) {
  own_ = Make(key_.get(), {.common_name = name, .names = ""}, "critical,CA:TRUE");
  certificate_ = Pem(own_.get());
}

TestCertificate TestAuthority::Issue(const CertificateRequest& request) {
  const Key key = MakeKey();
  return {Pem(Make(key.get(), request, "critical,CA:FALSE").get()), Pem(key.get())};
}

TestAuthority::Key TestAuthority::MakeKey() { return Key(EVP_EC_gen("P-256")); }

std::string TestAuthority::Pem(EVP_PKEY* key) {
  BIO* const bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  return TakeText(bio);
}

std::string TestAuthority::Pem(X509* certificate) {
  BIO* const bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, certificate);
  return TakeText(bio);
}

// Signed by this authority; its own, the first, by itself.
TestAuthority::Certificate TestAuthority::Make(EVP_PKEY* key, const CertificateRequest& request,
                                               const std::string& basics) {
  Certificate made(X509_new());
  X509_set_version(made.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(made.get()), ++serial_);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), absl::ToInt64Seconds(request.valid_from));
  X509_gmtime_adj(X509_getm_notAfter(made.get()), absl::ToInt64Seconds(request.valid_until));
  X509_NAME_add_entry_by_txt(X509_get_subject_name(made.get()), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(request.common_name.c_str()),
                             -1, -1, 0);
  X509* const issuer = own_ == nullptr ? made.get() : own_.get();
  X509_set_issuer_name(made.get(), X509_get_subject_name(issuer));
  X509_set_pubkey(made.get(), key);
  AddExtension(made.get(), issuer, NID_basic_constraints, basics);
  AddExtension(made.get(), issuer, NID_subject_key_identifier, "hash");
  if (!request.names.empty()) AddExtension(made.get(), issuer, NID_subject_alt_name, request.names);
  X509_sign(made.get(), key_.get(), EVP_sha256());
  return made;
}

}  // namespace latentforge
