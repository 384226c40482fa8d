#include "service/auth/key_set.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "service/auth/base64url.h"

namespace latentforge::service {
namespace {

constexpr JsonLimits kLimits = {.max_depth = 8, .max_bytes = size_t{1} << 20};
constexpr size_t kMaxKeys = 100;
constexpr size_t kMinRsaBits = 2048;

// The algorithm that a key is for; nullopt for keys that verify no token of ours.
std::optional<absl::string_view> AlgorithmOf(const cjose_jwk_t* jwk) {
  switch (cjose_jwk_get_kty(jwk, nullptr)) {
    case CJOSE_JWK_KTY_RSA:
      if (cjose_jwk_get_keysize(jwk, nullptr) < kMinRsaBits) return std::nullopt;
      return "RS256";
    case CJOSE_JWK_KTY_EC:
      if (cjose_jwk_EC_get_curve(jwk, nullptr) != CJOSE_JWK_EC_P_256) return std::nullopt;
      return "ES256";
    default:  // a secret, with which anybody who verifies could sign
      return std::nullopt;
  }
}

// Shows cjose no more of a key than its public numbers, and those only where they are
// base64url. nullptr for what is no such key.
cjose_jwk_t* Import(const Json& entry) {
  Json numbers = Json::object();
  for (const char* name : {"kty", "crv"})
    if (entry.contains(name)) numbers[name] = entry[name];
  for (const char* name : {"n", "e", "x", "y"}) {
    const auto number = entry.find(name);
    if (number == entry.end()) continue;
    if (!number->is_string() || !IsBase64Url(number->get_ref<const std::string&>())) return nullptr;
    numbers[name] = *number;
  }
  const std::string text = WriteJson(numbers);
  return cjose_jwk_import(text.data(), text.size(), nullptr);
}

}  // namespace

absl::StatusOr<KeySet> KeySet::Parse(absl::string_view json) {
  LF_ASSIGN_OR_RETURN(const Json value, ParseJson(json, kLimits));
  LF_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Create(value, "key set"));
  const Json* const list = object.Find("keys");
  if (list == nullptr || !list->is_array()) return object.Wrong("keys", "a list of keys");
  if (list->size() > kMaxKeys)
    return absl::InvalidArgumentError(
        absl::StrCat("key set has ", list->size(), " keys, expected at most ", kMaxKeys));
  KeySet set;
  for (const Json& entry : *list) {
    LF_ASSIGN_OR_RETURN(const JsonObject key, JsonObject::Create(entry, "key set: key"));
    LF_ASSIGN_OR_RETURN(const std::string use, key.StringOr("use", "sig"));
    LF_ASSIGN_OR_RETURN(std::string id, key.StringOr("kid", ""));
    std::unique_ptr<cjose_jwk_t, Release> jwk(Import(entry));
    const std::optional<absl::string_view> algorithm =
        jwk == nullptr ? std::nullopt : AlgorithmOf(jwk.get());
    if (!algorithm.has_value() || use != "sig") continue;
    LF_ASSIGN_OR_RETURN(const std::string stated, key.StringOr("alg", *algorithm));
    if (stated == *algorithm) set.keys_.push_back({std::move(id), *algorithm, std::move(jwk)});
  }
  if (set.keys_.empty())
    return absl::InvalidArgumentError(
        absl::StrCat("key set has ", list->size(),
                     " keys, none of them for RS256 (2048 bits or more) or ES256"));
  return set;
}

const cjose_jwk_t* KeySet::Find(absl::string_view key_id, absl::string_view algorithm) const {
  const cjose_jwk_t* found = nullptr;
  for (const Key& key : keys_) {
    if (key.algorithm != algorithm || (!key_id.empty() && key.id != key_id)) continue;
    if (found != nullptr) return nullptr;  // which of them is not said
    found = key.jwk.get();
  }
  return found;
}

}  // namespace latentforge::service
