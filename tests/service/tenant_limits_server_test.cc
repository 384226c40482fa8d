// The tenants file from the command line's options to the API and the metrics.
#include <arpa/inet.h>
#include <sys/socket.h>

#include <fstream>

#include "absl/strings/numbers.h"
#include "base/unique_fd.h"
#include "gmock/gmock.h"
#include "grpc/grpc.h"
#include "service/server.h"
#include "tests/service/rpc_client.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

// What an HTTP server of this machine answers; "" when it does not.
std::string Fetch(const std::string& address, const std::string& path) {
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) return "";
  const std::string request =
      absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(send(fd.get(), request.data(), request.size(), 0),
            static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  while (true) {
    const ssize_t got = recv(fd.get(), buffer, sizeof(buffer), 0);
    if (got <= 0) return answer;
    answer.append(buffer, static_cast<size_t>(got));
  }
}

class TenantLimitsServerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { grpc_init(); }

  void Write(const std::string& json) { std::ofstream(Path()) << json; }
  std::filesystem::path Path() const { return dir_.path() / "tenants.json"; }

  absl::Status Start() {
    ServerOptions options;
    options.listen.push_back(
        *ParseListenAddress(absl::StrCat("unix:", (dir_.path() / "server.sock").string())));
    options.database = dir_.path() / "jobs.db";
    options.metrics_address = "127.0.0.1:0";
    options.tenants_file = Path();
    options.token_file = token_file_;
    options.allowed_roots = allowed_roots_;
    auto started = Server::Start(options, RealClock());
    if (!started.ok()) return started.status();
    server_ = *std::move(started);
    client_ = std::make_unique<RpcClient>(server_->addresses().front());
    return absl::OkStatus();
  }

  grpc::Status Submit(int number) {
    v1::CreateJobResponse response;
    return client_->Create(TinyJob(dir_.path(), number), &response);
  }

  TempDir dir_;
  PathRoots allowed_roots_;
  std::filesystem::path token_file_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<RpcClient> client_;
};

TEST_F(TenantLimitsServerTest, RootsOutsideTheServersKeepItFromStarting) {
  allowed_roots_ = {std::filesystem::canonical(dir_.path())};
  Write(R"({"search": {"allowed_roots": ["/elsewhere"]}})");
  const absl::Status wrong = Start();
  EXPECT_EQ(wrong.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(wrong.message()),
              testing::HasSubstr("tenant search: \"allowed_roots\" holds /elsewhere, expected "
                                 "folders beneath the server's --allowed-root " +
                                 allowed_roots_[0].string()));
  Write(absl::StrCat(R"({"default": {"allowed_roots": [")", allowed_roots_[0].string(),
                     R"(/default"]}})"));
  ASSERT_TRUE(Start().ok());
  EXPECT_EQ(ReasonOf(Submit(0)), "PATH_NOT_ALLOWED");
}

TEST_F(TenantLimitsServerTest, ItWarnsWhereTenantsMayReadEachOthersFiles) {
  allowed_roots_ = {std::filesystem::canonical(dir_.path())};
  const std::string root = allowed_roots_[0].string();
  token_file_ = dir_.path() / "tokens";
  std::ofstream(token_file_) << "cn:alice alice search user\ncn:bob bob speech user\n"
                             << "cn:w1 w1 default worker\n";
  Write("{}");
  testing::internal::CaptureStderr();
  ASSERT_TRUE(Start().ok());
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::HasSubstr("tenants (search, speech) may read each other's files beneath " +
                                 root + ":"));
  server_.reset();
  Write(absl::StrCat(R"({"search": {"allowed_roots": [")", root, R"(/search"]},)",
                     R"("speech": {"allowed_roots": [")", root, R"(/speech"]}})"));
  testing::internal::CaptureStderr();
  ASSERT_TRUE(Start().ok());
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::Not(testing::HasSubstr("each other's files")));
}

TEST_F(TenantLimitsServerTest, AWrongFileKeepsTheServerFromStarting) {
  EXPECT_EQ(Start().code(), absl::StatusCode::kNotFound);
  Write(R"({"default": {"max_queued": 1}})");
  const absl::Status wrong = Start();
  EXPECT_EQ(wrong.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(wrong.message()),
              testing::AllOf(testing::HasSubstr("tenants.json"), testing::HasSubstr("max_queued")));
}

TEST_F(TenantLimitsServerTest, TheFileIsFollowedAndMetricsTellOfIt) {
  Write(R"({"default": {"max_queued_jobs": 1, "max_submits_per_minute": 100}})");
  ASSERT_TRUE(Start().ok());
  ASSERT_TRUE(Submit(0).ok());
  const grpc::Status refused = Submit(1);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(refused), "QUOTA_QUEUED_JOBS");
  EXPECT_THAT(
      Fetch(server_->metrics_address(), "/metrics"),
      testing::AllOf(
          testing::HasSubstr("latentforge_quota_limit{quota=\"queued_jobs\",tenant=\"default\"} 1"),
          testing::HasSubstr("latentforge_quota_used{quota=\"queued_jobs\",tenant=\"default\"} 1"),
          testing::HasSubstr("latentforge_tenant_share_ratio{tenant=\"other\"} 0"),
          testing::HasSubstr("latentforge_rate_limited_total{limit=\"submits_per_minute\"} 0"),
          testing::HasSubstr(
              "latentforge_submits_rejected_total{reason=\"QUOTA_QUEUED_JOBS\"} 1")));
  Write("no JSON");  // changes nothing
  RealClock().SleepFor(absl::Milliseconds(1100));
  EXPECT_EQ(ReasonOf(Submit(1)), "QUOTA_QUEUED_JOBS");
  Write(R"({"*": {"max_queued_jobs": 2}})");
  grpc::Status later;
  const absl::Duration deadline = RealClock().Monotonic() + absl::Seconds(20);
  while (!(later = Submit(1)).ok() && RealClock().Monotonic() < deadline)
    RealClock().SleepFor(absl::Milliseconds(50));
  EXPECT_TRUE(later.ok()) << later.error_message();
}

}  // namespace
}  // namespace latentforge::service
