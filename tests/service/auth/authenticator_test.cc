#include "service/auth/authenticator.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/auth/token_errors.h"
#include "tests/fakes/fake_clock.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

constexpr char kUri[] = "spiffe://example.org/w1";

class AuthenticatorTest : public testing::Test {
 protected:
  AuthenticatorTest() {
    Write(absl::StrCat(TokenTable::CredentialOf("secret"), " alice search user\nuri:", kUri,
                       " w1 default worker\ncn:box w2 default worker\n"));
    auto opened = TokenFile::Open(path_, clock_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    file_ = *std::move(opened);
    known_ = std::make_unique<Authenticator>(file_.get(), Dora);
  }

  void Write(const std::string& text) { EXPECT_TRUE(WriteFileAtomic(path_, text).ok()); }

  static Credentials With(Transport transport, std::vector<std::string> authorization) {
    Credentials credentials;
    credentials.transport = transport;
    credentials.authorization = std::move(authorization);
    return credentials;
  }

  std::string ReasonFor(const Credentials& credentials) const {
    const absl::Status status = known_->Authenticate(credentials).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << status;
    return ReasonOf(status);
  }

  // Says of every web token that it is dora's.
  static absl::StatusOr<Caller> Dora(absl::string_view) {
    return Caller{.identity = {"dora", "speech", Role::kUser}};
  }

  TempDir dir_;
  const std::filesystem::path path_ = dir_.path() / "tokens";
  FakeClock clock_;
  std::unique_ptr<TokenFile> file_;
  std::unique_ptr<Authenticator> known_;
};

TEST_F(AuthenticatorTest, TokensDecide) {
  for (const char* scheme : {"Bearer ", "bearer ", "BEARER  "}) {
    const auto caller =
        known_->Authenticate(With(Transport::kTls, {absl::StrCat(scheme, "secret")}));
    ASSERT_TRUE(caller.ok()) << caller.status();
    EXPECT_EQ(caller->identity, (Identity{"alice", "search", Role::kUser}));
  }
  // Also where the transport alone would have been enough.
  EXPECT_EQ(known_->Authenticate(With(Transport::kUnixSocket, {"Bearer secret"}))->identity.subject,
            "alice");
  EXPECT_EQ(known_->Authenticate(With(Transport::kTls, {"Bearer a.b.c"}))->identity.subject,
            "dora");
}

TEST_F(AuthenticatorTest, WrongHeadersAreRefusedOnEveryTransport) {
  for (const Transport transport :
       {Transport::kUnixSocket, Transport::kLoopback, Transport::kTls}) {
    for (const char* value : {"Bearer wrong", "Bearer", "Bearer ", "", "secret", "Basic secret"})
      EXPECT_EQ(ReasonFor(With(transport, {value})), kTokenInvalid) << value;
    EXPECT_EQ(ReasonFor(With(transport, {"Bearer secret", "Bearer secret"})), kTokenInvalid);
  }
}

TEST_F(AuthenticatorTest, CertificatesAreKnownByUriOrName) {
  Credentials credentials;
  credentials.certificate_uris = {"spiffe://example.org/other", kUri};
  EXPECT_EQ(known_->Authenticate(credentials)->identity.subject, "w1");
  credentials.certificate_uris.clear();
  credentials.certificate_name = "box";
  EXPECT_EQ(known_->Authenticate(credentials)->identity.subject, "w2");
  credentials.certificate_name = kUri;
  EXPECT_EQ(ReasonFor(credentials), "CERTIFICATE_NOT_KNOWN");
}

TEST_F(AuthenticatorTest, WithoutCredentialsOnlyThisMachineIsTrusted) {
  EXPECT_EQ(ReasonFor(With(Transport::kTls, {})), "CREDENTIALS_MISSING");
  EXPECT_EQ(ReasonFor(With(Transport::kLoopback, {})), "CREDENTIALS_MISSING");
  const auto local = known_->Authenticate(With(Transport::kUnixSocket, {}));
  ASSERT_TRUE(local.ok()) << local.status();
  EXPECT_EQ(local->identity, (Identity{"local", kDefaultTenant, Role::kAdmin}));

  const Authenticator unset(nullptr, nullptr);
  EXPECT_EQ(unset.Authenticate(With(Transport::kLoopback, {}))->identity.subject, "local");
  EXPECT_EQ(unset.Authenticate(With(Transport::kUnixSocket, {"Bearer x"}))->identity.subject,
            "local");
  EXPECT_FALSE(unset.Authenticate(With(Transport::kTls, {})).ok());
  EXPECT_FALSE(unset.Authenticate(With(Transport::kTls, {"Bearer secret"})).ok());
}

TEST_F(AuthenticatorTest, WhatLastsIsAskedAgain) {
  const auto alice = known_->Authenticate(With(Transport::kTls, {"Bearer secret"}));
  ASSERT_TRUE(alice.ok());
  EXPECT_TRUE(known_->CheckStillValid(*alice, clock_.Now()).ok());
  Write(absl::StrCat(TokenTable::CredentialOf("secret"), " alice search admin\n"));
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(ReasonOf(known_->CheckStillValid(*alice, clock_.Now())), kTokenInvalid);

  Caller dora = *Dora("");
  dora.expire_time = clock_.Now() + absl::Seconds(5);
  EXPECT_TRUE(known_->CheckStillValid(dora, clock_.Now()).ok());
  clock_.Advance(absl::Seconds(5));
  EXPECT_EQ(ReasonOf(known_->CheckStillValid(dora, clock_.Now())), "TOKEN_EXPIRED");
}

}  // namespace
}  // namespace latentforge::service
