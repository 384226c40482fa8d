#include "service/options.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

absl::StatusOr<CommandLine> Parse(std::vector<const char*> flags) {
  flags.insert(flags.begin(), {"latentforge-server", "--database", "/tmp/jobs.db"});
  return ParseCommandLine(static_cast<int>(flags.size()), flags.data());
}

absl::StatusOr<CommandLine> ParseLocal(std::vector<const char*> flags) {
  flags.push_back("--insecure");
  return Parse(std::move(flags));
}

std::string ErrorOf(std::vector<const char*> flags) {
  const absl::Status status = Parse(std::move(flags)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(OptionsTest, TenantsHaveNoLimitsUnlessAFileSaysSo) {
  EXPECT_TRUE(ParseLocal({})->options.tenants_file.empty());
  EXPECT_EQ(ParseLocal({"--tenants=/etc/tenants.json"})->options.tenants_file, "/etc/tenants.json");
}

TEST(OptionsTest, OneOfSeveralTenantsHasAQuarterOfTheWatchesUnlessSaidOtherwise) {
  const auto of_tenant = [](std::vector<const char*> flags) {
    return ParseLocal(std::move(flags))->options.max_watches_per_tenant;
  };
  EXPECT_EQ(of_tenant({}), 0) << "without credentials there is one";
  EXPECT_EQ(of_tenant({"--token-file=t"}), 250);
  EXPECT_EQ(of_tenant({"--token-file=t", "--max-watches=5000"}), 1250);
  EXPECT_EQ(of_tenant({"--token-file=t", "--max-watches=3"}), 1);
  EXPECT_EQ(of_tenant({"--token-file=t", "--max-watches-per-tenant=0"}), 0);
  EXPECT_EQ(of_tenant({"--token-file=t", "--max-watches=8", "--max-watches-per-tenant=7"}), 7);
}

TEST(OptionsTest, DefaultsListenOnThisMachineOnly) {
  const auto line = Parse({"--insecure"});
  ASSERT_TRUE(line.ok()) << line.status();
  ASSERT_FALSE(line->done);
  ASSERT_EQ(line->options.listen.size(), 1u);
  EXPECT_TRUE(line->options.listen[0].is_local());
  EXPECT_TRUE(line->options.allowed_roots.empty());
  EXPECT_EQ(line->options.drain_delay, absl::ZeroDuration());
  EXPECT_EQ(ParseLocal({"--drain-delay=3s"})->options.drain_delay, absl::Seconds(3));
}

TEST(OptionsTest, NoPortIsInTheClearUnasked) {
  for (const char* address : {"127.0.0.1:8470", "localhost:0", "[::1]:8470"}) {
    const std::string listen = absl::StrCat("--listen=", address);
    EXPECT_THAT(ErrorOf({listen.c_str()}), HasSubstr("would be in the clear"));
    EXPECT_TRUE(Parse({listen.c_str(), "--insecure"}).ok());
  }
  for (const char* address : {"0.0.0.0:8470", "[::]:8470", "example.org:1", "10.0.0.1:8470"}) {
    const std::string listen = absl::StrCat("--listen=", address);
    EXPECT_THAT(ErrorOf({listen.c_str(), "--insecure", "--allowed-root=/tmp"}),
                HasSubstr("only an address of this machine can do without"));
  }
  EXPECT_TRUE(Parse({"--listen=unix:/tmp/s"}).ok());
}

TEST(OptionsTest, TlsNeedsItsFilesAndSomebodyToLetIn) {
  EXPECT_THAT(ErrorOf({"--tls-cert=c"}), HasSubstr("need each other"));
  EXPECT_THAT(ErrorOf({"--tls-key=k"}), HasSubstr("need each other"));
  EXPECT_THAT(ErrorOf({"--tls-cert=c", "--tls-key=k"}), HasSubstr("would let nobody in"));
  EXPECT_THAT(ErrorOf({"--insecure", "--tls-client-ca=a"}), HasSubstr("--tls-cert"));
  EXPECT_THAT(ErrorOf({"--tls-cert=c", "--tls-key=k", "--tls-client-ca=a"}),
              HasSubstr("--token-file"));
  EXPECT_THAT(ErrorOf({"--listen=0.0.0.0:8470", "--tls-cert=c", "--tls-key=k", "--token-file=t"}),
              HasSubstr("--allowed-root"));
  const auto line = Parse({"--listen=0.0.0.0:8470", "--tls-cert=c", "--tls-key=k", "--token-file=t",
                           "--tls-client-ca=a", "--allowed-root=/tmp/../tmp"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.drain_delay, absl::Seconds(2));
  EXPECT_EQ(line->options.allowed_roots.at(0), std::filesystem::canonical("/tmp"));
  EXPECT_EQ(line->options.tls.client_ca, "a");
}

TEST(OptionsTest, AProviderIsDescribedInFull) {
  EXPECT_EQ(ParseLocal({})->options.oidc.issuer, "");
  const auto line =
      ParseLocal({"--oidc-issuer=https://id.example.org", "--oidc-audience=latentforge",
                  "--oidc-jwks=/etc/keys.json", "--oidc-role-claim=realm_access.roles"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.oidc.issuer, "https://id.example.org");
  EXPECT_EQ(line->options.oidc.tenant_claim, "tenant");
  EXPECT_EQ(line->options.oidc.role_claim, "realm_access.roles");
  EXPECT_THAT(std::string(Parse({"--oidc-issuer=https://id.example.org"}).status().message()),
              HasSubstr("need each other"));
  EXPECT_THAT(std::string(Parse({"--oidc-issuer=i", "--oidc-audience=a",
                                 "--oidc-jwks=http://id.example.org/keys"})
                              .status()
                              .message()),
              HasSubstr("expected a file or an https: URL"));
}

TEST(OptionsTest, ValuesAreChecked) {
  EXPECT_EQ(ParseLocal({"--lease-duration=45s"})->options.lease_duration, absl::Seconds(45));
  for (const char* flag : {"--lease-duration=fast", "--lease-duration=-1s", "--lease-duration=25h",
                           "--max-attempts=0", "--tombstone-ttl=100000h", "--no-such-flag"}) {
    const auto line = Parse({flag});
    ASSERT_TRUE(line.ok()) << flag;
    EXPECT_TRUE(line->done) << flag;
    EXPECT_EQ(line->exit_code, 2) << flag;
  }
  EXPECT_EQ(ParseLocal({})->options.default_ttl, absl::ZeroDuration());
  EXPECT_EQ(ParseLocal({})->options.tombstone_ttl, absl::Hours(24));
  EXPECT_EQ(ParseLocal({"--default-ttl=720h"})->options.default_ttl, absl::Hours(720));
  EXPECT_EQ(ParseLocal({"--priority-step=10m"})->options.priority_step, absl::Minutes(10));
  EXPECT_FALSE(ParseLocal({"--lease-duration=10ms"}).ok());
  EXPECT_FALSE(ParseLocal({"--allowed-root=/no/such/folder"}).ok());
  EXPECT_EQ(Parse({"--help"})->exit_code, 0);
}

TEST(OptionsTest, AStallTimeoutThatClosesEveryWatchIsRefused) {
  const std::vector<const char*> arguments = {
      "latentforge-server",    "--listen", "unix:/s", "--database", "/d",
      "--watch-stall-timeout", "5ms"};
  const absl::Status status =
      ParseCommandLine(static_cast<int>(arguments.size()), arguments.data()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("--watch-stall-timeout is 5ms"));
}

TEST(OptionsTest, AMistypedFlagIsAnsweredWithTheNearestOne) {
  // Also where a required flag is the one that was mistyped.
  const std::vector<const char*> arguments = {"latentforge-server", "--databse", "/tmp/jobs.db"};
  testing::internal::CaptureStderr();
  const auto line = ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
  EXPECT_THAT(
      testing::internal::GetCapturedStderr(),
      HasSubstr("\"--databse\" is no flag of latentforge-server; did you mean --database?"));
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->exit_code, 2);
}

TEST(ListenAddressTest, ReadsEveryForm) {
  EXPECT_EQ(ParseListenAddress("localhost:0")->port, 0);
  EXPECT_TRUE(ParseListenAddress("[::1]:80")->is_local());
  EXPECT_FALSE(ParseListenAddress("[::]:80")->is_local());
  EXPECT_FALSE(ParseListenAddress("example.org:80")->is_local());
  EXPECT_EQ(ParseListenAddress("unix:/run/lf.sock")->unix_path, "/run/lf.sock");
}

TEST(ListenAddressTest, RefusesWhatGrpcWouldMisread) {
  for (const char* text : {"", "8470", ":8470", "host:", "host:x", "host:65536", "host:-1",
                           "::1:80", "[::1:80", "unix:relative", "unix:"}) {
    const absl::Status status = ParseListenAddress(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("unix:/path"));
  }
  EXPECT_FALSE(ParseListenAddress("unix:/" + std::string(200, 'x')).ok());
}

}  // namespace
}  // namespace latentforge::service
