#include "worker/agent/agent.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
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
using ::testing::HasSubstr;
using Attempts = std::vector<FakeWorkerService::Attempt>;

bool AllEnded(const Attempts& attempts) {
  for (const auto& attempt : attempts) {
    if (!attempt.outcome.has_value()) return false;
  }
  return true;
}

class AgentTest : public testing::Test {
 protected:
  AgentTest() {
    scratch_ = *Scratch::Open(folder_ / "scratch");
    attempt_.convert = fs::path(LATENTFORGE_BINARY_DIR) / "bin/fake_convert";
    attempt_.worker = "w1";
    options_.info.set_name("w1");
    options_.info.set_slots(2);
    options_.acquire_wait = absl::Seconds(5);
  }
  ~AgentTest() override {
    agent_.reset();
    fs::remove_all(folder_);
  }

  static fs::path MakeFolder() {
    const fs::path folder = fs::path(testing::TempDir()) / absl::StrCat("agent_test_", getpid());
    fs::create_directories(folder);
    return folder;
  }

  void Submit(const std::string& name, const std::string& steps) {
    v1::JobSpec spec;
    spec.mutable_output()->set_uri((folder_ / name).string());
    std::ofstream((folder_ / name).string() + ".script.json")
        << "{\"attempts\":[[" << steps << "]]}";
    server_.service().Submit(name, spec);
  }

  void StartAgent() {
    runner_ = std::make_unique<AttemptRunner>(client_, *scratch_, RealClock(), random_, attempt_);
    agent_ = std::make_unique<Agent>(client_, *runner_, random_, options_);
  }

  const fs::path folder_ = MakeFolder();
  const Random random_ = [] { return 0.5; };
  FakeWorkerServer server_{folder_.string()};
  LeaseClient client_{*MakeServerChannel(server_.address()), absl::Seconds(5), RealClock()};
  std::unique_ptr<Scratch> scratch_;
  AttemptOptions attempt_;
  AgentOptions options_;
  std::unique_ptr<AttemptRunner> runner_;
  std::unique_ptr<Agent> agent_;
};

constexpr char kResult[] = R"({"event":{"result":{"artifactUri":"file:///out"}}})";
constexpr char kForever[] = R"({"event":{"log":{"text":"up"}}},{"sleep_ms":600000})";

TEST_F(AgentTest, RunsOneJobAfterAnotherAndASlotSurvivesCrashes) {
  for (int i = 0; i < 6; ++i) {
    Submit(absl::StrCat("j", i), i % 3 == 0 ? R"({"signal":11})" : kResult);
  }
  StartAgent();
  ASSERT_TRUE(server_.service().AwaitAttempts(
      [](const Attempts& attempts) { return attempts.size() == 6 && AllEnded(attempts); }));
  int crashed = 0;
  for (const auto& attempt : server_.service().attempts()) {
    if (attempt.outcome->has_error()) ++crashed;
  }
  EXPECT_EQ(crashed, 2);
  EXPECT_EQ(server_.service().last_worker().slots(), 2);
  agent_->Drain();
  EXPECT_TRUE(agent_->WaitUntilStopped(absl::Seconds(10)));
  EXPECT_TRUE(agent_->refusal().ok());
}

TEST_F(AgentTest, RunsAsManyAtOnceAsItHasSlots) {
  for (const char* name : {"a", "b", "c"}) Submit(name, kForever);
  StartAgent();
  ASSERT_TRUE(server_.service().AwaitAttempts([](const Attempts& attempts) {
    return attempts.size() == 2 && !attempts[0].events.empty() && !attempts[1].events.empty();
  }));
  EXPECT_EQ(server_.service().attempts().size(), 2u);
  agent_->Drain();
}

TEST_F(AgentTest, DrainingGivesLeasesBack) {
  Submit("a", kForever);
  StartAgent();
  ASSERT_TRUE(server_.service().AwaitAttempts(
      [](const Attempts& attempts) { return !attempts.empty() && !attempts[0].events.empty(); }));
  agent_->Drain();
  ASSERT_TRUE(agent_->WaitUntilStopped(absl::Seconds(10)));
  EXPECT_TRUE(server_.service().attempts()[0].outcome->has_released());
}

TEST_F(AgentTest, GivingUpEndsEvenWithoutAServer) {
  Submit("a", kForever);
  StartAgent();
  ASSERT_TRUE(server_.service().AwaitAttempts(
      [](const Attempts& attempts) { return !attempts.empty() && !attempts[0].events.empty(); }));
  server_.Stop();
  agent_->Drain();
  agent_->GiveUp();
  EXPECT_TRUE(agent_->WaitUntilStopped(absl::Seconds(15)));
}

TEST_F(AgentTest, StopsWhenTheServerRefusesIt) {
  server_.service().FailWith(ErrorWithReason(grpc::StatusCode::FAILED_PRECONDITION,
                                             "VERSION_MISMATCH", "server 0.2, worker 0.1"));
  StartAgent();
  ASSERT_TRUE(agent_->WaitUntilStopped(absl::Seconds(10)));
  EXPECT_THAT(std::string(agent_->refusal().message()), HasSubstr("VERSION_MISMATCH"));
  EXPECT_THAT(std::string(agent_->refusal().message()), HasSubstr("server 0.2, worker 0.1"));
}

grpc::Status NameTaken(absl::Duration retry_delay) {
  return ErrorWithReason(grpc::StatusCode::ALREADY_EXISTS, "WORKER_NAME_TAKEN",
                         "another worker named w1 is alive; use --name", retry_delay);
}

TEST_F(AgentTest, TakesItsNameOverWhenTheDeadHolderIsForgotten) {
  server_.service().FailWith(NameTaken(absl::Minutes(10)));
  StartAgent();
  EXPECT_FALSE(agent_->WaitUntilStopped(absl::Milliseconds(300)));
  EXPECT_TRUE(agent_->refusal().ok());
  server_.service().FailWith(grpc::Status::OK);
  Submit("a", kResult);
  EXPECT_TRUE(server_.service().AwaitAttempts(
      [](const Attempts& attempts) { return attempts.size() == 1 && AllEnded(attempts); }));
  agent_->Drain();
}

TEST_F(AgentTest, StopsWhenAnotherProcessKeepsItsName) {
  server_.service().FailWith(NameTaken(absl::Milliseconds(50)));
  StartAgent();
  ASSERT_TRUE(agent_->WaitUntilStopped(absl::Seconds(20)));
  EXPECT_THAT(std::string(agent_->refusal().message()), HasSubstr("WORKER_NAME_TAKEN"));
  EXPECT_THAT(std::string(agent_->refusal().message()), HasSubstr("use --name"));
}

TEST_F(AgentTest, WaitsForAServerThatIsNotThereYet) {
  server_.Stop();
  StartAgent();
  EXPECT_FALSE(agent_->WaitUntilStopped(absl::Milliseconds(300)));
  server_.Start();
  Submit("a", kResult);
  EXPECT_TRUE(server_.service().AwaitAttempts(
      [](const Attempts& attempts) { return attempts.size() == 1 && AllEnded(attempts); }));
  agent_->Drain();
}

}  // namespace
}  // namespace latentforge::agent
