// An OpenID Connect provider in a few lines, for tests.
#pragma once

#include <cjose/header.h>
#include <cjose/jwk.h>
#include <cjose/jws.h>

#include <cstdlib>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "gtest/gtest.h"

namespace latentforge::service {

// Has one key, and signs with it.
class TokenSigner {
 public:
  enum class Kind { kRsa2048, kRsa1024, kP256, kP384, kSecret };

  TokenSigner(Kind kind, const std::string& key_id) : key_id_(key_id), jwk_(Make(kind)) {
    cjose_jwk_set_kid(jwk_, key_id.data(), key_id.size(), nullptr);
  }
  TokenSigner(const TokenSigner&) = delete;
  TokenSigner& operator=(const TokenSigner&) = delete;
  ~TokenSigner() { cjose_jwk_release(jwk_); }

  // The key as it is published (a secret one in full: no provider would).
  Json PublicKey() const {
    const bool secret = cjose_jwk_get_kty(jwk_, nullptr) == CJOSE_JWK_KTY_OCT;
    char* const text = cjose_jwk_to_json(jwk_, secret, nullptr);
    Json key = Json::parse(text);
    std::free(text);  // cjose's own
    return key;
  }

  std::string Sign(const Json& claims, const std::string& algorithm) const {
    cjose_header_t* const header = cjose_header_new(nullptr);
    cjose_header_set(header, "alg", algorithm.c_str(), nullptr);
    if (!key_id_.empty()) cjose_header_set(header, "kid", key_id_.c_str(), nullptr);
    const std::string text = claims.dump();
    cjose_jws_t* const jws = cjose_jws_sign(
        jwk_, header, reinterpret_cast<const uint8_t*>(text.data()), text.size(), nullptr);
    const char* token = nullptr;
    EXPECT_TRUE(jws != nullptr && cjose_jws_export(jws, &token, nullptr)) << algorithm;
    const std::string signed_token = token == nullptr ? "" : token;
    cjose_jws_release(jws);
    cjose_header_release(header);
    return signed_token;
  }

  // A token whose parts are given, unsigned or signed by somebody else.
  static std::string Join(const Json& header, const Json& claims, const std::string& signature) {
    const auto part = [](const std::string& text) {
      std::string escaped = absl::WebSafeBase64Escape(text);
      escaped.erase(escaped.find_last_not_of('=') + 1);
      return escaped;
    };
    return absl::StrCat(part(header.dump()), ".", part(claims.dump()), ".", part(signature));
  }

 private:
  static cjose_jwk_t* Make(Kind kind) {
    static const uint8_t kExponent[] = {1, 0, 1};
    switch (kind) {
      case Kind::kRsa2048:
        return cjose_jwk_create_RSA_random(2048, kExponent, sizeof(kExponent), nullptr);
      case Kind::kRsa1024:
        return cjose_jwk_create_RSA_random(1024, kExponent, sizeof(kExponent), nullptr);
      case Kind::kP256:
        return cjose_jwk_create_EC_random(CJOSE_JWK_EC_P_256, nullptr);
      case Kind::kP384:
        return cjose_jwk_create_EC_random(CJOSE_JWK_EC_P_384, nullptr);
      case Kind::kSecret:
        break;
    }
    return cjose_jwk_create_oct_random(256, nullptr);
  }

  const std::string key_id_;
  cjose_jwk_t* const jwk_;
};

inline std::string KeySetOf(std::initializer_list<const TokenSigner*> signers) {
  Json keys = Json::array();
  for (const TokenSigner* signer : signers) keys.push_back(signer->PublicKey());
  return Json{{"keys", keys}}.dump();
}

}  // namespace latentforge::service
