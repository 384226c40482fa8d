#include "service/auth/web_token.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/auth/token_errors.h"
#include "tests/fakes/fake_clock.h"
#include "tests/service/auth/token_signer.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

class WebTokenTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    rsa_ = std::make_unique<TokenSigner>(TokenSigner::Kind::kRsa2048, "rsa");
    ec_ = std::make_unique<TokenSigner>(TokenSigner::Kind::kP256, "ec");
  }
  static void TearDownTestSuite() {
    rsa_.reset();
    ec_.reset();
  }

  WebTokenTest() : published_(KeySetOf({rsa_.get(), ec_.get()})) { WaitForKeys(); }

  absl::StatusOr<std::string> Fetch() {
    absl::MutexLock lock(&mutex_);
    ++fetches_;
    if (published_.empty()) return absl::UnavailableError("the provider is away");
    return published_;
  }

  void Publish(const std::string& keys) {
    absl::MutexLock lock(&mutex_);
    published_ = keys;
  }

  int fetches() {
    absl::MutexLock lock(&mutex_);
    return fetches_;
  }

  void WaitForKeys() {
    while (keys_.Current() == nullptr) std::this_thread::yield();
  }

  Json Claims() const {
    const int64_t now = absl::ToUnixSeconds(clock_.Now());
    return {{"iss", "https://id.example.org"},
            {"aud", {"other", "latentforge"}},
            {"sub", "alice@example.org"},
            {"exp", now + 600},
            {"tenant", "search"},
            {"role", "user"}};
  }

  Json With(const std::string& claim, const Json& value) const {
    Json claims = Claims();
    claims[claim] = value;
    return claims;
  }

  Json Without(const std::string& claim) const {
    Json claims = Claims();
    claims.erase(claim);
    return claims;
  }

  // The message of the refusal.
  std::string Refusal(const std::string& token, const std::string& reason = kTokenInvalid) {
    const absl::Status status = verifier_.Verify(token).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << status;
    EXPECT_EQ(ReasonOf(status), reason) << status;
    return std::string(status.message());
  }

  std::string RefusalOf(const Json& claims) { return Refusal(rsa_->Sign(claims, "RS256")); }

  inline static std::unique_ptr<TokenSigner> rsa_;
  inline static std::unique_ptr<TokenSigner> ec_;
  FakeClock clock_;
  absl::Mutex mutex_;
  std::string published_;
  int fetches_ = 0;
  KeyRing keys_{[this] { return Fetch(); }, {.min_interval = absl::Seconds(10)}, clock_};
  WebTokenVerifier verifier_{
      {.issuer = "https://id.example.org", .audience = "latentforge"}, keys_, clock_};
};

TEST_F(WebTokenTest, BothAlgorithmsSayWhoCalls) {
  for (const std::string& token : {rsa_->Sign(Claims(), "RS256"), ec_->Sign(Claims(), "ES256")}) {
    const auto caller = verifier_.Verify(token);
    ASSERT_TRUE(caller.ok()) << caller.status();
    EXPECT_EQ(caller->identity, (Identity{"alice@example.org", "search", Role::kUser}));
    EXPECT_EQ(caller->expire_time, clock_.Now() + absl::Seconds(630));
    EXPECT_EQ(caller->credential, "");
  }
}

TEST_F(WebTokenTest, OtherAlgorithmsAreRefused) {
  for (const char* algorithm : {"none", "None", "HS256", "RS384", "PS256", "ES384", ""}) {
    const Json header = {{"alg", algorithm}, {"kid", "rsa"}};
    EXPECT_THAT(Refusal(TokenSigner::Join(header, Claims(), "")),
                HasSubstr("not signed with RS256 or ES256"))
        << algorithm;
  }
  EXPECT_THAT(Refusal(TokenSigner::Join({{"kid", "rsa"}}, Claims(), "")), HasSubstr("RS256"));
  // Both the genuine signature and the algorithm's name must fit the key.
  EXPECT_THAT(Refusal(rsa_->Sign(Claims(), "RS512")), HasSubstr("RS256"));
  EXPECT_THAT(Refusal(TokenSigner::Join({{"alg", "ES256"}, {"kid", "rsa"}}, Claims(), "x")),
              HasSubstr("is signed with an unknown key"));
}

TEST_F(WebTokenTest, APublicKeyIsNoSecret) {
  const std::string unsigned_token =
      TokenSigner::Join({{"alg", "HS256"}, {"kid", "rsa"}}, Claims(), "");
  const std::string input = unsigned_token.substr(0, unsigned_token.size() - 1);
  const std::string secret = rsa_->PublicKey().dump();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(input.data()), input.size(), digest, &size);
  Refusal(absl::StrCat(
      input, ".",
      absl::WebSafeBase64Escape(absl::string_view(reinterpret_cast<const char*>(digest), size))));
}

TEST_F(WebTokenTest, ChangedTokensAreRefused) {
  const std::string token = rsa_->Sign(Claims(), "RS256");
  const size_t dot = token.rfind('.');
  const std::string other = rsa_->Sign(With("role", "admin"), "RS256");
  EXPECT_THAT(Refusal(other.substr(0, other.rfind('.')) + token.substr(dot)),
              HasSubstr("wrong signature"));
  for (size_t i = 0; i < token.size(); i += 7) {
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    if (changed != token) Refusal(changed);
  }
  for (size_t size = 0; size < token.size(); size += 13) Refusal(token.substr(0, size));
}

TEST_F(WebTokenTest, NonsenseIsRefused) {
  const std::string good = rsa_->Sign(Claims(), "RS256");
  const std::string tail = good.substr(good.find('.'));
  for (const std::string& token :
       {std::string(), std::string(".."), std::string("a.b.c"), std::string("{}.{}.{}"),
        "bnVsbA" + tail, "W10" + tail, good + ".", std::string(20'000, 'x')})
    Refusal(token);
  const Json critical = {{"alg", "RS256"}, {"kid", "rsa"}, {"crit", {"exp"}}};
  EXPECT_THAT(Refusal(TokenSigner::Join(critical, Claims(), "x")), HasSubstr("crit"));
  EXPECT_THAT(Refusal(TokenSigner::Join({{"alg", "RS256"}, {"kid", 7}}, Claims(), "x")),
              HasSubstr("kid"));
}

TEST_F(WebTokenTest, PartsThatAreNotBase64UrlAreRefused) {
  const std::string token = rsa_->Sign(Claims(), "RS256");
  // cjose would end the process on some of these.
  for (const size_t at : {size_t{3}, token.find('.') + 5, token.rfind('.') + 5}) {
    for (const char* text : {"=", "==", "+", "/", "%", "\n", "A"}) {
      std::string changed = token;
      changed.insert(at, text);
      Refusal(changed);
    }
  }
  EXPECT_THAT(Refusal(token + "="), HasSubstr("has no signature in base64url"));
  EXPECT_THAT(Refusal("a." + token), HasSubstr("is not three parts in base64url"));
}

TEST_F(WebTokenTest, IssuerAndAudienceMustBeOurs) {
  EXPECT_THAT(RefusalOf(With("iss", "https://evil.example.org")),
              HasSubstr("has the issuer \"https://evil.example.org\", expected "
                        "\"https://id.example.org\""));
  RefusalOf(Without("iss"));
  RefusalOf(With("iss", {"https://id.example.org"}));
  EXPECT_THAT(RefusalOf(With("aud", "other")), HasSubstr("audience \"latentforge\""));
  RefusalOf(With("aud", Json::array()));
  RefusalOf(Without("aud"));
  EXPECT_TRUE(verifier_.Verify(rsa_->Sign(With("aud", "latentforge"), "RS256")).ok());
}

TEST_F(WebTokenTest, TimesAreKeptWithALittleLeeway) {
  const int64_t now = absl::ToUnixSeconds(clock_.Now());
  const auto refused = [&](const Json& claims, const std::string& reason) {
    Refusal(rsa_->Sign(claims, "RS256"), reason);
  };
  EXPECT_TRUE(verifier_.Verify(rsa_->Sign(With("exp", now - 29), "RS256")).ok());
  refused(With("exp", now - 30), "TOKEN_EXPIRED");
  refused(With("exp", -1e300), "TOKEN_EXPIRED");
  refused(With("exp", "tomorrow"), kTokenInvalid);
  refused(Without("exp"), kTokenInvalid);
  EXPECT_TRUE(verifier_.Verify(rsa_->Sign(With("exp", 1e300), "RS256")).ok());
  EXPECT_TRUE(verifier_.Verify(rsa_->Sign(With("nbf", now + 30), "RS256")).ok());
  refused(With("nbf", now + 31), kTokenInvalid);
  refused(With("nbf", "now"), kTokenInvalid);
}

TEST_F(WebTokenTest, SubjectTenantAndRoleMustBeThere) {
  EXPECT_THAT(RefusalOf(Without("sub")), HasSubstr("subject (sub) that has 0 bytes"));
  RefusalOf(With("sub", "a\nb"));
  EXPECT_THAT(RefusalOf(Without("tenant")), HasSubstr("tenant (tenant) that has 0 bytes"));
  RefusalOf(With("tenant", "../x"));
  RefusalOf(With("tenant", 7));
  EXPECT_THAT(RefusalOf(With("role", "root")), HasSubstr("no role (role)"));
  RefusalOf(With("role", true));
}

TEST_F(WebTokenTest, ClaimsMayBeNestedAndRolesListed) {
  const WebTokenVerifier verifier({.issuer = "https://id.example.org",
                                   .audience = "latentforge",
                                   .tenant_claim = "https://example.org/team",
                                   .role_claim = "realm_access.roles"},
                                  keys_, clock_);
  Json claims = With("https://example.org/team", "speech");
  claims["realm_access"] = {{"roles", {"offline", "user", "admin"}}};
  const auto caller = verifier.Verify(ec_->Sign(claims, "ES256"));
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ(caller->identity, (Identity{"alice@example.org", "speech", Role::kAdmin}));
}

TEST_F(WebTokenTest, ANewKeyIsFetchedButNotTooOften) {
  const TokenSigner next(TokenSigner::Kind::kP256, "next");
  const std::string token = next.Sign(Claims(), "ES256");
  EXPECT_THAT(Refusal(token), HasSubstr("unknown key"));
  EXPECT_EQ(fetches(), 1);
  Publish(KeySetOf({&next}));
  clock_.Advance(absl::Seconds(10));
  // The call that finds the key missing does not wait for it.
  const absl::Status early = verifier_.Verify(token).status();
  EXPECT_EQ(early.code(), absl::StatusCode::kUnavailable) << early;
  EXPECT_EQ(ReasonOf(early), "SIGNING_KEYS_MISSING");
  while (!verifier_.Verify(token).ok()) std::this_thread::yield();
  EXPECT_EQ(fetches(), 2);
  EXPECT_THAT(Refusal(rsa_->Sign(Claims(), "RS256")), HasSubstr("unknown key"));
  EXPECT_EQ(fetches(), 2);
}

TEST_F(WebTokenTest, AProviderThatIsAwayTakesNoKeysAway) {
  Publish("");
  clock_.Advance(absl::Seconds(10));
  const TokenSigner stranger(TokenSigner::Kind::kP256, "stranger");
  EXPECT_EQ(verifier_.Verify(stranger.Sign(Claims(), "ES256")).status().code(),
            absl::StatusCode::kUnavailable);
  while (fetches() < 2) std::this_thread::yield();
  EXPECT_TRUE(verifier_.Verify(rsa_->Sign(Claims(), "RS256")).ok());
}

TEST(KeySetTest, HoldsOnlyKeysThatVerifyTokens) {
  const TokenSigner good(TokenSigner::Kind::kP256, "");
  const TokenSigner weak(TokenSigner::Kind::kRsa1024, "weak");
  const TokenSigner curve(TokenSigner::Kind::kP384, "curve");
  const TokenSigner secret(TokenSigner::Kind::kSecret, "secret");
  const auto set = KeySet::Parse(KeySetOf({&good, &weak, &curve, &secret}));
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->size(), 1u);
  EXPECT_NE(set->Find("", "ES256"), nullptr);
  EXPECT_EQ(set->Find("", "RS256"), nullptr);
  EXPECT_EQ(set->Find("other", "ES256"), nullptr);
  Json key = good.PublicKey();
  key["use"] = "enc";
  EXPECT_FALSE(KeySet::Parse(Json{{"keys", {key}}}.dump()).ok());
  key["use"] = "sig";
  key["alg"] = "ES512";
  EXPECT_FALSE(KeySet::Parse(Json{{"keys", {key}}}.dump()).ok());
}

TEST(KeySetTest, TwoKeysForOneNameAreNone) {
  const TokenSigner one(TokenSigner::Kind::kP256, "k");
  const TokenSigner two(TokenSigner::Kind::kP256, "k");
  EXPECT_EQ(KeySet::Parse(KeySetOf({&one, &two}))->Find("k", "ES256"), nullptr);
}

TEST(KeySetTest, RefusesWhatIsNone) {
  for (const char* text :
       {"", "[]", "{}", R"({"keys": 7})", R"({"keys": []})", R"({"keys": ["x"]})",
        R"({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]})",
        R"({"keys": [{"kty": "RSA", "n": "", "e": ""}]})",
        R"({"keys": [{"kty": "RSA", "n": "AQ=B", "e": "AQAB"}]})",
        R"({"keys": [{"kty": "RSA", "n": 7, "e": "AQAB"}]})",
        R"({"keys": [{"kty": "oct", "k": "A"}]})", R"({"keys": [{"kid": 7}]})"})
    EXPECT_EQ(KeySet::Parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
}

}  // namespace
}  // namespace latentforge::service
