#include "worker/agent/log_relay.h"

#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_worker_service.h"

namespace latentforge::agent {
namespace {

namespace fs = std::filesystem;
using Attempts = std::vector<FakeWorkerService::Attempt>;

class LogRelayTest : public testing::Test {
 protected:
  LogRelayTest() {
    service().Submit("a", {});
    const auto grant = client_.Acquire({}, absl::Seconds(10));
    EXPECT_TRUE(grant.ok() && grant->has_lease()) << grant.status();
    if (grant.ok()) lease_ = grant->lease();
  }
  ~LogRelayTest() override { fs::remove_all(folder_); }

  static fs::path MakeFolder() {
    const fs::path folder = fs::path(testing::TempDir()) / absl::StrCat("log_relay_", getpid());
    fs::create_directories(folder);
    return folder;
  }

  FakeWorkerService& service() { return server_.service(); }

  std::unique_ptr<LogRelay> MakeRelay() {
    return std::make_unique<LogRelay>(
        client_, RealClock(), [] { return 0.5; }, *control_, lease_, options_);
  }

  std::vector<v1::AttemptLogLine> Lines() { return service().attempts()[0].lines; }

  const fs::path folder_ = MakeFolder();
  FakeWorkerServer server_{folder_.string()};
  LeaseClient client_{*MakeServerChannel(server_.address()), absl::Seconds(5), RealClock()};
  v1::Lease lease_;
  const std::unique_ptr<AttemptControl> control_ = *AttemptControl::Create();
  LogRelayOptions options_ = {.interval = absl::Milliseconds(50)};
};

TEST_F(LogRelayTest, LinesArriveOnceInOrderAndInBatches) {
  const auto relay = MakeRelay();
  for (int i = 1; i <= 1000; ++i) relay->Push(absl::StrCat("line ", i), false);
  EXPECT_TRUE(service().AwaitAttempts(
      [](const Attempts& attempts) { return attempts[0].lines.size() == 1000; }));
  const std::vector<v1::AttemptLogLine> lines = Lines();
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(lines[i].text(), absl::StrCat("line ", i + 1));
  EXPECT_LE(service().attempts()[0].log_calls, 20);
}

TEST_F(LogRelayTest, TheEndSendsWhatIsThereWithoutWaiting) {
  options_.interval = absl::Hours(1);
  const absl::Duration start = RealClock().Monotonic();
  {
    const auto relay = MakeRelay();
    relay->Push("first", false);
    EXPECT_TRUE(service().AwaitAttempts(
        [](const Attempts& attempts) { return !attempts[0].lines.empty(); }));
    relay->Push("last words", true);
  }
  EXPECT_LT(RealClock().Monotonic() - start, absl::Seconds(10));
  ASSERT_EQ(Lines().size(), 2u);
  EXPECT_EQ(Lines().back().text(), "last words");
  EXPECT_TRUE(Lines().back().truncated());
}

TEST_F(LogRelayTest, ABusyServerGetsThemLater) {
  service().FailLogsWith(ErrorWithReason(grpc::StatusCode::RESOURCE_EXHAUSTED, "LOGS_BUSY", "no"));
  const auto relay = MakeRelay();
  relay->Push("one", false);
  RealClock().SleepFor(absl::Milliseconds(100));
  EXPECT_TRUE(Lines().empty());
  service().FailLogsWith(grpc::Status::OK);
  relay->Push("two", false);
  EXPECT_TRUE(service().AwaitAttempts(
      [](const Attempts& attempts) { return attempts[0].lines.size() == 2; }));
}

TEST_F(LogRelayTest, TooManyWhileTheServerIsAwayLoseTheOldest) {
  options_.buffer.max_lines = 10;
  server_.Stop();
  const auto relay = MakeRelay();
  for (int i = 1; i <= 100; ++i) relay->Push("x", false);
  server_.Start();
  EXPECT_TRUE(service().AwaitAttempts([](const Attempts& attempts) {
    return !attempts[0].lines.empty() && attempts[0].lines.back().sequence() == 100;
  }));
  EXPECT_EQ(Lines().front().sequence(), 91);
}

TEST_F(LogRelayTest, TheLastLinesWaitForAServerThatIsAway) {
  server_.Stop();
  auto relay = MakeRelay();
  relay->Push("last words", false);
  relay->Finish();
  RealClock().SleepFor(absl::Milliseconds(300));
  server_.Start();
  relay.reset();
  ASSERT_EQ(Lines().size(), 1u);
}

TEST_F(LogRelayTest, GivingUpEndsTheWaitForAServerThatIsAway) {
  server_.Stop();
  auto relay = MakeRelay();
  relay->Push("last words", false);
  control_->GiveUp();
  relay.reset();
  server_.Start();
  EXPECT_TRUE(Lines().empty());
}

TEST_F(LogRelayTest, ABusyServerDoesNotHoldTheEndUp) {
  service().FailLogsWith(ErrorWithReason(grpc::StatusCode::RESOURCE_EXHAUSTED, "LOGS_BUSY", "no"));
  const absl::Duration start = RealClock().Monotonic();
  {
    const auto relay = MakeRelay();
    relay->Push("last words", false);
  }
  EXPECT_LT(RealClock().Monotonic() - start, absl::Seconds(3));
}

TEST_F(LogRelayTest, ALostLeaseEndsItWithoutAWord) {
  service().FenceAll();
  const auto relay = MakeRelay();
  relay->Push("zombie", false);
  while (service().fenced_calls() == 0) RealClock().SleepFor(absl::Milliseconds(1));
  relay->Push("again", false);
  relay->Finish();
  RealClock().SleepFor(absl::Milliseconds(100));
  EXPECT_EQ(service().fenced_calls(), 1);
  EXPECT_TRUE(Lines().empty());
}

}  // namespace
}  // namespace latentforge::agent
