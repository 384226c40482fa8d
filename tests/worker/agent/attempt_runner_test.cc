#include "worker/agent/attempt_runner.h"

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/shared_deadline.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_worker_service.h"
#include "tests/fakes/skewed_clock.h"

namespace latentforge::agent {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Attempts = std::vector<FakeWorkerService::Attempt>;

constexpr char kStarted[] = R"({"event":{"phaseStarted":{"phase":"PHASE_CALIBRATING"}}})";
constexpr char kResult[] = R"({"event":{"result":{"artifactUri":"file:///out"}}})";

// A fake server, the real runner, and the fake compute process.
class AttemptRunnerTest : public testing::Test {
 protected:
  AttemptRunnerTest() {
    auto scratch = Scratch::Open(folder_ / "scratch");
    EXPECT_TRUE(scratch.ok()) << scratch.status();
    scratch_ = *std::move(scratch);
    options_.convert = fs::path(LATENTFORGE_BINARY_DIR) / "bin/fake_convert";
    options_.worker = "w1";
    options_.session.stop_grace = absl::Seconds(5);
    auto control = AttemptControl::Create();
    EXPECT_TRUE(control.ok()) << control.status();
    control_ = *std::move(control);
  }
  ~AttemptRunnerTest() override { fs::remove_all(folder_); }

  static fs::path MakeFolder() {
    const fs::path folder =
        fs::path(testing::TempDir()) / absl::StrCat("attempt_runner_", getpid());
    fs::create_directories(folder);
    return folder;
  }

  FakeWorkerService& service() { return server_.service(); }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  // Leases a job whose process does these steps, comma separated, and runs it.
  void Run(const std::string& steps) {
    v1::JobSpec spec;
    spec.mutable_output()->set_uri(Path("out"));
    std::ofstream(Path("out.script.json")) << "{\"attempts\":[[" << steps << "]]}";
    service().Submit("a", spec);
    v1::WorkerInfo info;
    const auto grant = client_.Acquire(info, absl::Seconds(10));
    ASSERT_TRUE(grant.ok() && grant->has_lease()) << grant.status();
    AttemptRunner runner(
        client_, *scratch_, *clock_, [] { return 0.5; }, options_);
    runner.Run(*grant, *control_);
  }

  // In the background, until the process has printed its first event.
  std::thread Start(const std::string& steps) {
    std::thread thread([this, steps] { Run(steps); });
    EXPECT_TRUE(service().AwaitAttempts(
        [](const Attempts& attempts) { return !attempts.empty() && !attempts[0].events.empty(); }));
    return thread;
  }

  v1::CompleteAttemptRequest Outcome() {
    const Attempts attempts = service().attempts();
    if (attempts.empty() || !attempts[0].outcome.has_value()) return {};
    return *attempts[0].outcome;
  }

  const fs::path folder_ = MakeFolder();
  FakeWorkerServer server_{folder_.string()};
  LeaseClient client_{*MakeServerChannel(server_.address()), absl::Seconds(5), RealClock()};
  std::unique_ptr<Scratch> scratch_;
  const Clock* clock_ = &RealClock();
  AttemptOptions options_;
  std::unique_ptr<AttemptControl> control_;
};

TEST_F(AttemptRunnerTest, ReportsEveryEventAndTheResult) {
  std::string steps = kStarted;
  for (int i = 0; i < 300; ++i) absl::StrAppend(&steps, R"(,{"event":{"progress":{"percent":1}}})");
  absl::StrAppend(&steps, ",", kResult);
  Run(steps);
  const Attempts attempts = service().attempts();
  ASSERT_EQ(attempts.size(), 1u);
  ASSERT_EQ(attempts[0].events.size(), 301u) << "the result is part of the report alone";
  for (int i = 0; i < 301; ++i) EXPECT_EQ(attempts[0].events[i].sequence(), i + 1);
  EXPECT_EQ(Outcome().result().artifact_uri(), "file:///out");
  EXPECT_GE(attempts[0].heartbeats, 1);
  EXPECT_FALSE(fs::exists(scratch_->root() / "a")) << "nothing is left after success";
}

TEST_F(AttemptRunnerTest, FillsDeviceAndThreadsOfTheWorkerIntoTheSpec) {
  options_.device = "cuda:1";
  options_.threads = 3;
  Run(R"({"append":")" + Path("marker") + R"(","text":"x"},{"signal":11})");
  const auto spec = ReadFile(scratch_->root() / "a/spec.json");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(*spec, HasSubstr(R"("device":"cuda:1")"));
  EXPECT_THAT(*spec, HasSubstr(R"("threads":3)"));
}

TEST_F(AttemptRunnerTest, TellsTheProcessUntilWhenItMayPublish) {
  const absl::Duration begin = RealClock().Monotonic();
  Run(R"({"append":")" + Path("marker") + R"(","text":"x"},{"signal":11})");
  const fs::path file = scratch_->root() / "a/lease";
  EXPECT_THAT(*ReadFile(scratch_->root() / "a/arguments"), HasSubstr("--lease " + file.string()));
  const auto deadline = SharedDeadline::Open(file);
  ASSERT_TRUE(deadline.ok()) << deadline.status();
  EXPECT_GT(deadline->Get(), begin);
  EXPECT_LT(deadline->Get(), RealClock().Monotonic() + absl::Minutes(1));
}

TEST_F(AttemptRunnerTest, HoldsTheProcessToTheAllowedRoots) {
  options_.allowed_roots = {"/models", "/texts"};
  Run(R"({"append":")" + Path("marker") + R"(","text":"x"},{"signal":11})");
  EXPECT_THAT(*ReadFile(scratch_->root() / "a/arguments"),
              HasSubstr("--allowed-root /models --allowed-root /texts"));
}

TEST_F(AttemptRunnerTest, HoldsTheProcessToTheRootsOfTheLeaseWithinThose) {
  options_.allowed_roots = {"/models", "/texts/public"};
  service().SetAllowedRoots({"/models/a", "/texts", "/results"});
  Run(R"({"append":")" + Path("marker") + R"(","text":"x"},{"signal":11})");
  EXPECT_THAT(*ReadFile(scratch_->root() / "a/arguments"),
              testing::EndsWith(" --allowed-root /models/a --allowed-root /texts/public"));
}

TEST_F(AttemptRunnerTest, RootsWithNothingInCommonStartNoProcess) {
  options_.allowed_roots = {"/models/b"};
  service().SetAllowedRoots({"/models/a"});
  Run(R"({"append":")" + Path("marker") + R"(","text":"x"})");
  EXPECT_FALSE(fs::exists(Path("marker")));
  const v1::ConversionError error = Outcome().error();
  EXPECT_EQ(error.reason(), "WORKER_ROOTS_TOO_NARROW");
  EXPECT_EQ(error.error_class(), v1::ERROR_CLASS_SYSTEM);
  EXPECT_TRUE(error.retryable());
  EXPECT_THAT(error.message(), HasSubstr("beneath /models/a, and this worker's --allowed-root is "
                                         "/models/b"));
}

TEST_F(AttemptRunnerTest, ACrashIsReportedWithTheLastLinesAndKeepsItsFiles) {
  Run(absl::StrCat(kStarted,
                   R"(,{"stderr":"line","times":50},{"stderr":"the end"},{"signal":11})"));
  const v1::ConversionError error = Outcome().error();
  EXPECT_EQ(error.reason(), "WORKER_CRASHED");
  EXPECT_THAT(error.message(), HasSubstr("SIGSEGV"));
  EXPECT_THAT(error.message(), HasSubstr("| the end"));
  EXPECT_LT(error.message().size(), 1000u);
  EXPECT_EQ(error.phase(), v1::PHASE_CALIBRATING);
  EXPECT_TRUE(fs::exists(scratch_->root() / "a/attempts"));
}

TEST_F(AttemptRunnerTest, EveryLineOfStderrIsInTheLogBeforeTheAttemptEnds) {
  Run(absl::StrCat(kStarted, R"(,{"stderr":"line","times":600},{"stderr":"the end"},)", kResult));
  const Attempts attempts = service().attempts();
  ASSERT_EQ(attempts[0].lines.size(), 601u);
  EXPECT_EQ(attempts[0].lines.front().sequence(), 1);
  EXPECT_EQ(attempts[0].lines.back().sequence(), 601);
  EXPECT_EQ(attempts[0].lines.back().text(), "the end");
  EXPECT_GT(attempts[0].lines.back().time().seconds(), 0);
}

TEST_F(AttemptRunnerTest, AServerThatTakesNoLogsHoldsNoAttemptUp) {
  service().FailLogsWith(ErrorWithReason(grpc::StatusCode::RESOURCE_EXHAUSTED, "LOGS_BUSY", "no"));
  const absl::Time start = absl::Now();
  Run(absl::StrCat(kStarted, R"(,{"stderr":"line","times":6000},)", kResult));
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_TRUE(Outcome().has_result());
}

TEST_F(AttemptRunnerTest, AKillThatTheKernelCountsIsLackOfMemory) {
  options_.oom_kills = [count = int64_t{0}]() mutable { return ++count; };
  Run(absl::StrCat(kStarted, R"(,{"signal":9})"));
  EXPECT_EQ(Outcome().error().reason(), "OUT_OF_MEMORY");
}

TEST_F(AttemptRunnerTest, AKillThatItDoesNotCountIsACrash) {
  options_.oom_kills = [] { return int64_t{7}; };
  Run(absl::StrCat(kStarted, R"(,{"signal":9})"));
  EXPECT_EQ(Outcome().error().reason(), "WORKER_CRASHED");
}

TEST_F(AttemptRunnerTest, ACrashWithinALineIsACrash) {
  Run(R"({"write":"{\"sequence\":1,\"lo"},{"signal":6})");
  EXPECT_EQ(Outcome().error().reason(), "WORKER_CRASHED");
  EXPECT_THAT(Outcome().error().message(), HasSubstr("SIGABRT"));
}

TEST_F(AttemptRunnerTest, PassesTheProcesssErrorOnAndRemovesItsFiles) {
  Run(R"({"event":{"error":{"reason":"BAD_SOURCE","message":"m","errorClass":"ERROR_CLASS_USER"}}},
         {"exit":1})");
  EXPECT_EQ(Outcome().error().reason(), "BAD_SOURCE");
  EXPECT_EQ(Outcome().error().error_class(), v1::ERROR_CLASS_USER);
  EXPECT_FALSE(fs::exists(scratch_->root() / "a"));
}

TEST_F(AttemptRunnerTest, GarbageEndsTheAttemptAtOnce) {
  Run(absl::StrCat(kStarted, R"(,{"print":"Segmentation fault, sorry"},{"hang":true})"));
  EXPECT_EQ(Outcome().error().reason(), "EVENT_STREAM_INVALID");
  EXPECT_THAT(Outcome().error().message(), HasSubstr("Segmentation fault, sorry"));
}

TEST_F(AttemptRunnerTest, AProcessThatHangsAfterItsResultIsNoSuccess) {
  options_.session.final_grace = absl::Milliseconds(100);
  Run(absl::StrCat(kResult, R"(,{"hang":true})"));
  EXPECT_EQ(Outcome().error().reason(), "WORKER_CRASHED");
  EXPECT_THAT(Outcome().error().message(), HasSubstr("did not end after its last event"));
}

TEST_F(AttemptRunnerTest, AProgramThatIsNotThereIsASystemError) {
  options_.convert = "/no/such/convert";
  Run(kResult);
  EXPECT_EQ(Outcome().error().reason(), "WORKER_MISCONFIGURED");
  EXPECT_THAT(Outcome().error().message(), HasSubstr("/no/such/convert"));
}

TEST_F(AttemptRunnerTest, CancelStopsTheProcessAndSaysSo) {
  std::thread run = Start(absl::StrCat(kStarted, R"(,{"sleep_ms":600000})"));
  service().CommandAll(v1::ATTEMPT_COMMAND_CANCEL);
  run.join();
  EXPECT_TRUE(Outcome().has_cancelled());
  EXPECT_FALSE(fs::exists(scratch_->root() / "a"));
}

TEST_F(AttemptRunnerTest, CancelKillsAProcessThatIgnoresIt) {
  options_.session.stop_grace = absl::Milliseconds(50);
  std::thread run =
      Start(absl::StrCat(R"({"ignore_sigterm":true},)", kStarted, R"(,{"hang":true})"));
  service().CommandAll(v1::ATTEMPT_COMMAND_CANCEL);
  run.join();
  EXPECT_TRUE(Outcome().has_cancelled());
}

TEST_F(AttemptRunnerTest, APauseStopsTheProcessKeepsItsFilesAndTellsTheServer) {
  options_.session.stop_grace = absl::Milliseconds(500);
  std::thread run =
      Start(absl::StrCat(R"({"ignore_sigterm":true},)", kStarted, R"(,{"hang":true})"));
  service().CommandAll(v1::ATTEMPT_COMMAND_PAUSE);
  EXPECT_TRUE(service().AwaitAttempts([](const Attempts& attempts) {
    return attempts[0].obeying == v1::ATTEMPT_COMMAND_PAUSE;
  })) << "otherwise its lease would not be extended";
  run.join();
  EXPECT_TRUE(Outcome().has_paused());
  EXPECT_TRUE(fs::exists(scratch_->root() / "a"));
}

TEST_F(AttemptRunnerTest, ACancellationWinsOverAPause) {
  options_.session.stop_grace = absl::Milliseconds(500);
  std::thread run =
      Start(absl::StrCat(R"({"ignore_sigterm":true},)", kStarted, R"(,{"hang":true})"));
  control_->RequestStop(StopReason::kPause);
  service().CommandAll(v1::ATTEMPT_COMMAND_CANCEL);
  run.join();
  EXPECT_TRUE(Outcome().has_cancelled());
  EXPECT_FALSE(fs::exists(scratch_->root() / "a"));
}

TEST_F(AttemptRunnerTest, ALostLeaseKillsTheProcessAndReportsNothing) {
  std::thread run =
      Start(absl::StrCat(R"({"ignore_sigterm":true},)", kStarted, R"(,{"hang":true})"));
  service().FenceAll();
  run.join();
  EXPECT_FALSE(service().attempts()[0].outcome.has_value());
  EXPECT_GE(service().fenced_calls(), 1);
}

TEST_F(AttemptRunnerTest, WithoutHeartbeatsTheProcessEndsBeforeTheLease) {
  service().SetLease(absl::Milliseconds(1000), absl::Milliseconds(100));
  std::thread run = Start(absl::StrCat(kStarted, R"(,{"ignore_sigterm":true},{"append":")",
                                       Path("pid"), R"(","text":"$PID"},{"hang":true})"));
  pid_t pid = 0;
  while (pid == 0) {
    const auto text = ReadFile(Path("pid"));
    if (text.ok() && !absl::SimpleAtoi(*text, &pid)) pid = 0;
  }
  service().FailWith(grpc::Status(grpc::StatusCode::UNAVAILABLE, "partitioned"));
  const absl::Time cut = absl::Now();
  while (kill(pid, 0) == 0 && absl::Now() < cut + absl::Seconds(20)) std::this_thread::yield();
  // The last heartbeat was sent before the cut, so the lease ended by cut + 1 s.
  EXPECT_LT(absl::Now() - cut, absl::Milliseconds(1000));
  service().FailWith(grpc::Status::OK);
  run.join();
  EXPECT_TRUE(Outcome().has_released()) << "the server had not given the job away";
}

class WrongWallClockTest : public AttemptRunnerTest,
                           public testing::WithParamInterface<absl::Duration> {};

TEST_P(WrongWallClockTest, ChangesNothing) {
  service().SetLease(absl::Milliseconds(600), absl::Milliseconds(100));
  const SkewedClock clock(GetParam());
  clock_ = &clock;
  Run(absl::StrCat(kStarted, R"(,{"sleep_ms":1500},)", kResult));  // longer than its lease
  EXPECT_TRUE(Outcome().has_result()) << Outcome().ShortDebugString();
  EXPECT_GE(service().attempts()[0].heartbeats, 5);
}

INSTANTIATE_TEST_SUITE_P(TenMinutes, WrongWallClockTest,
                         testing::Values(-absl::Minutes(10), absl::Minutes(10)));

TEST_F(AttemptRunnerTest, AServerThatIsAwayForAWhileLosesNothing) {
  std::thread run = Start(absl::StrCat(
      kStarted, R"(,{"wait_for":")", Path("away"),
      R"("},{"event":{"log":{"text":"while away"}}},{"event":{"progress":{"percent":99}}},)",
      R"({"append":")", Path("done"), R"(","text":"x"},)", kResult));
  server_.Stop();
  std::ofstream(Path("away")) << "x";
  while (!fs::exists(Path("done"))) std::this_thread::yield();
  server_.Start();
  run.join();
  const Attempts attempts = service().attempts();
  ASSERT_EQ(attempts[0].events.size(), 3u);
  EXPECT_EQ(attempts[0].events[1].log().text(), "while away");
  EXPECT_TRUE(Outcome().has_result());
}

TEST_F(AttemptRunnerTest, ReleaseStopsTheProcessAndKeepsItsFiles) {
  std::thread run = Start(absl::StrCat(kStarted, R"(,{"sleep_ms":600000})"));
  control_->RequestStop(StopReason::kRelease);
  run.join();
  EXPECT_TRUE(Outcome().has_released());
  EXPECT_TRUE(fs::exists(scratch_->root() / "a"));
}

TEST_F(AttemptRunnerTest, GivingUpEndsTheWaitForAServerThatIsGone) {
  std::thread run = Start(absl::StrCat(kStarted, R"(,{"sleep_ms":600000})"));
  server_.Stop();
  control_->RequestStop(StopReason::kRelease);
  control_->GiveUp();
  run.join();
  EXPECT_TRUE(fs::exists(scratch_->root() / "a"));
}

TEST_F(AttemptRunnerTest, ARefusedReportBecomesAnError) {
  std::thread run =
      Start(absl::StrCat(kStarted, R"(,{"wait_for":")", Path("go"), R"("},)", kResult));
  service().FailWith(ErrorWithReason(grpc::StatusCode::INVALID_ARGUMENT, "BAD_RESULT", "no"));
  std::ofstream(Path("go")) << "x";
  run.join();
  EXPECT_FALSE(service().attempts()[0].outcome.has_value());
  EXPECT_TRUE(fs::exists(scratch_->root() / "a")) << "the result is not thrown away";
}

}  // namespace
}  // namespace latentforge::agent
