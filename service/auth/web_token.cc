#include "service/auth/web_token.h"

#include <cjose/jws.h>

#include <optional>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "service/auth/base64url.h"
#include "service/auth/token_errors.h"

namespace latentforge::service {
namespace {

constexpr size_t kMaxBytes = 16 << 10;
constexpr JsonLimits kLimits = {.max_depth = 16, .max_bytes = kMaxBytes};

absl::Status Invalid(absl::string_view what) {
  return UnauthenticatedError(kTokenInvalid, absl::StrCat("the token ", what));
}

struct Header {
  std::string algorithm;
  std::string key_id;
};

// Says what it accepts: "none" and the HMACs, whose secret would be our public key, are not
// on the list.
absl::StatusOr<Header> ReadHeader(absl::string_view part) {
  std::string text;
  if (!absl::WebSafeBase64Unescape(part, &text))
    return Invalid("has a header that is not base64url");
  const absl::StatusOr<Json> json = ParseJson(text, kLimits);
  if (!json.ok() || !json->is_object()) return Invalid("has a header that is no JSON object");
  const absl::StatusOr<JsonObject> object = JsonObject::Create(*json, "header");
  const absl::StatusOr<std::string> algorithm = object->String("alg");
  const absl::StatusOr<std::string> key_id = object->StringOr("kid", "");
  if (!algorithm.ok() || (*algorithm != "RS256" && *algorithm != "ES256"))
    return Invalid("is not signed with RS256 or ES256");
  if (!key_id.ok()) return Invalid("names its key (kid) by something that is no text");
  if (object->Has("crit")) return Invalid("asks for extensions (crit), of which none is known");
  return Header{*algorithm, *key_id};
}

struct Release {
  void operator()(cjose_jws_t* jws) const { cjose_jws_release(jws); }
};

absl::StatusOr<Json> VerifiedClaims(absl::string_view token, const cjose_jwk_t* key) {
  const std::unique_ptr<cjose_jws_t, Release> jws(
      cjose_jws_import(token.data(), token.size(), nullptr));
  if (jws == nullptr) return Invalid("is no signed JSON Web Token");
  if (!cjose_jws_verify(jws.get(), key, nullptr)) return Invalid("has a wrong signature");
  uint8_t* bytes = nullptr;  // the token's own
  size_t size = 0;
  if (!cjose_jws_get_plaintext(jws.get(), &bytes, &size, nullptr)) return Invalid("holds nothing");
  absl::StatusOr<Json> claims =
      ParseJson(absl::string_view(reinterpret_cast<const char*>(bytes), size), kLimits);
  if (!claims.ok() || !claims->is_object()) return Invalid("holds no JSON object");
  return claims;
}

// The claim of that whole name, or at that path.
const Json* FindClaim(const Json& claims, absl::string_view path) {
  if (const auto whole = claims.find(std::string(path)); whole != claims.end()) return &*whole;
  const Json* value = &claims;
  for (const absl::string_view name : absl::StrSplit(path, '.')) {
    if (!value->is_object()) return nullptr;
    const auto member = value->find(std::string(name));
    if (member == value->end()) return nullptr;
    value = &*member;
  }
  return value;
}

std::vector<std::string> Texts(const Json* value) {
  std::vector<std::string> texts;
  if (value == nullptr) return texts;
  if (value->is_string()) texts.push_back(value->get<std::string>());
  if (!value->is_array()) return texts;
  for (const Json& element : *value)
    if (element.is_string()) texts.push_back(element.get<std::string>());
  return texts;
}

std::string Text(const Json* value) {
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

std::optional<absl::Time> TimeOf(const Json* value) {
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return absl::UnixEpoch() + absl::Seconds(value->get<double>());
}

absl::StatusOr<absl::Time> CheckTimes(const Json& claims, absl::Duration leeway, absl::Time now) {
  const std::optional<absl::Time> expire = TimeOf(FindClaim(claims, "exp"));
  if (!expire.has_value()) return Invalid("does not say when it expires (exp)");
  if (now >= *expire + leeway) return TokenExpiredError(*expire);
  const Json* const not_before = FindClaim(claims, "nbf");
  if (not_before == nullptr) return *expire + leeway;
  const std::optional<absl::Time> begin = TimeOf(not_before);
  if (!begin.has_value() || now < *begin - leeway) return Invalid("is not valid yet (nbf)");
  return *expire + leeway;
}

absl::Status CheckOrigin(const Json& claims, const OidcOptions& policy) {
  const std::string issuer = Text(FindClaim(claims, "iss"));
  if (issuer != policy.issuer)
    return Invalid(absl::StrCat("has the issuer \"", absl::CHexEscape(issuer.substr(0, 200)),
                                "\", expected \"", policy.issuer, "\""));
  for (const std::string& audience : Texts(FindClaim(claims, "aud")))
    if (audience == policy.audience) return absl::OkStatus();
  return Invalid(absl::StrCat("is not for the audience \"", policy.audience, "\""));
}

absl::StatusOr<Identity> IdentityOf(const Json& claims, const OidcOptions& policy) {
  Identity identity;
  identity.subject = Text(FindClaim(claims, "sub"));
  identity.tenant = Text(FindClaim(claims, policy.tenant_claim));
  if (const std::string problem = SubjectProblem(identity.subject); !problem.empty())
    return Invalid(absl::StrCat("has a subject (sub) that ", problem));
  if (const std::string problem = TenantProblem(identity.tenant); !problem.empty())
    return Invalid(absl::StrCat("has a tenant (", policy.tenant_claim, ") that ", problem));
  std::optional<Role> highest;
  for (const std::string& name : Texts(FindClaim(claims, policy.role_claim))) {
    const std::optional<Role> role = ParseRole(name);
    if (role.has_value() && (!highest.has_value() || *role > *highest)) highest = role;
  }
  if (!highest.has_value())
    return Invalid(
        absl::StrCat("has no role (", policy.role_claim, ") that is user, worker or admin"));
  identity.role = *highest;
  return identity;
}

}  // namespace

absl::StatusOr<Caller> WebTokenVerifier::Verify(absl::string_view token) const {
  if (token.size() > kMaxBytes)
    return Invalid(absl::StrCat("has ", token.size(), " bytes, expected at most ", kMaxBytes));
  const std::vector<absl::string_view> parts = absl::StrSplit(token, '.');
  if (parts.size() != 3 || !IsBase64Url(parts[0]) || !IsBase64Url(parts[1]))
    return Invalid("is not three parts in base64url");
  LF_ASSIGN_OR_RETURN(const Header header, ReadHeader(parts[0]));
  if (!IsBase64Url(parts[2])) return Invalid("has no signature in base64url");
  const std::shared_ptr<const KeySet> keys = keys_.Current();
  const cjose_jwk_t* const key =
      keys == nullptr ? nullptr : keys->Find(header.key_id, header.algorithm);
  if (key == nullptr) {
    if (keys != nullptr && !keys_.Refresh()) return Invalid("is signed with an unknown key");
    return WithRetryDelay(MakeError(absl::StatusCode::kUnavailable, "SIGNING_KEYS_MISSING",
                                    "the server is fetching the keys that sign tokens"),
                          absl::Seconds(1));
  }
  LF_ASSIGN_OR_RETURN(const Json claims, VerifiedClaims(token, key));
  LF_RETURN_IF_ERROR(CheckOrigin(claims, policy_));
  Caller caller;
  LF_ASSIGN_OR_RETURN(caller.expire_time, CheckTimes(claims, policy_.leeway, clock_.Now()));
  LF_ASSIGN_OR_RETURN(caller.identity, IdentityOf(claims, policy_));
  return caller;
}

}  // namespace latentforge::service
