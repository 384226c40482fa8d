// The real server and worker with a scripted compute process: what users were
// promised must hold when any of the three is killed, stopped or misbehaves.
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"
#include "tests/system/cluster.h"

namespace latentforge {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kStarted[] = R"({"event":{"phaseStarted":{"phase":"PHASE_CALIBRATING"}}})";
constexpr char kResult[] =
    R"({"event":{"result":{"artifactUri":"file:///out","reportUri":"file:///out/report.json",)"
    R"("perplexityBase":17.5,"perplexityConverted":18.5}}})";
// Notes "PID ATTEMPT" in the file `pids`, so that tests can find the process.
constexpr char kNote[] = R"({"append":"@/pids","text":"$PID"})";
constexpr char kWaitForGo[] = R"({"wait_for":"@/go"})";
constexpr char kForever[] = R"({"sleep_ms":600000})";

std::string Steps(const std::vector<std::string>& steps) {
  std::string text;
  for (const std::string& step : steps) absl::StrAppend(&text, text.empty() ? "" : ",", step);
  return text;
}

// One piece of work that a later attempt must not do again.
std::string Layer(int layer) {
  return absl::StrCat(R"({"once":"layer.)", layer, R"(","append":"@/work","text":"layer )", layer,
                      " in attempt $ATTEMPT\"}");
}

class ServiceKillTest : public testing::Test {
 protected:
  void ExpectDenseHistory(const std::string& job) {
    const std::vector<v1::JobEvent> events = cluster_.History(job);
    EXPECT_EQ(static_cast<int64_t>(events.size()), cluster_.Get(job).last_sequence());
    for (size_t i = 0; i < events.size(); ++i) {
      EXPECT_EQ(events[i].sequence(), static_cast<int64_t>(i) + 1);
    }
  }

  Cluster cluster_;
};

TEST_F(ServiceKillTest, AJobSucceedsAndLeavesNoScratch) {
  cluster_.StartWorker("w1");
  const std::string job = cluster_.Submit({Steps(
      {kStarted, R"({"event":{"log":{"severity":"SEVERITY_INFO","text":"hello"}}})",
       R"({"event":{"progress":{"phase":"PHASE_CALIBRATING","percent":50,"detail":"layer 1 of 2"}}})",
       R"({"event":{"phaseFinished":{"phase":"PHASE_CALIBRATING","seconds":1}}})", kResult})});
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(ended.status().attempt(), 1);
  EXPECT_EQ(ended.status().worker(), "w1");
  EXPECT_EQ(ended.status().result().perplexity_converted(), 18.5);
  bool logged = false;
  for (const v1::JobEvent& event : cluster_.History(job)) {
    logged = logged || (event.has_log() && event.log().text() == "hello");
  }
  EXPECT_TRUE(logged);
  ExpectDenseHistory(job);
  EXPECT_TRUE(Await([&] { return !fs::exists(cluster_.Scratch("w1", job)); }));
}

TEST_F(ServiceKillTest, AUserErrorIsFinal) {
  cluster_.StartWorker("w1");
  const std::string job = cluster_.Submit(
      {Steps({kNote,
              R"({"event":{"error":{"reason":"MALFORMED_CHECKPOINT","message":"tensor x has NaN",)"
              R"("errorClass":"ERROR_CLASS_USER","phase":"PHASE_FETCHING"}}})",
              R"({"exit":1})"})});
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(ended.status().error().reason(), "MALFORMED_CHECKPOINT");
  EXPECT_EQ(ended.status().attempt(), 1);
  EXPECT_EQ(Lines(cluster_.Path("pids")).size(), 1u);
}

TEST_F(ServiceKillTest, ACrashIsRepeatedUntilTheLastAttemptAndTheSlotSurvives) {
  cluster_.StartWorker("w1");
  const std::string job =
      cluster_.Submit({Steps({kNote, R"({"stderr":"bad pointer"})", R"({"signal":11})"})});
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(ended.status().attempt(), 3);
  EXPECT_EQ(Lines(cluster_.Path("pids")).size(), 3u);
  EXPECT_EQ(ended.status().error().reason(), "WORKER_CRASHED");
  EXPECT_THAT(ended.status().error().message(), HasSubstr("SIGSEGV"));
  EXPECT_THAT(ended.status().error().message(), HasSubstr("bad pointer"));
  ExpectDenseHistory(job);
  EXPECT_EQ(cluster_.AwaitEnd(cluster_.Submit({kResult})).status().state(),
            v1::JOB_STATE_SUCCEEDED);
}

TEST_F(ServiceKillTest, AJobThatAlwaysCrashesHoldsNoOtherUp) {
  cluster_.StartWorker("w1");
  const std::string poison = cluster_.Submit({R"({"signal":9})"});
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(cluster_.AwaitEnd(cluster_.Submit({kResult})).status().state(),
              v1::JOB_STATE_SUCCEEDED);
  }
  const v1::Job ended = cluster_.AwaitEnd(poison);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(ended.status().error().reason(), "WORKER_CRASHED") << "the kernel did not do it";
  EXPECT_THAT(ended.status().error().message(), HasSubstr("signal SIGKILL: somebody killed it"));
  EXPECT_EQ(ended.status().attempt(), 3);
}

TEST_F(ServiceKillTest, AKilledComputeProcessGoesOnFromItsLastLayer) {
  cluster_.StartWorker("w1");
  const std::string job = cluster_.Submit(
      {Steps({kStarted, Layer(0), kNote, kForever}), Steps({Layer(0), Layer(1), kResult})});
  kill(cluster_.AwaitProcess(1), SIGKILL);
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED) << ended.ShortDebugString();
  EXPECT_EQ(ended.status().attempt(), 2);
  EXPECT_THAT(Lines(cluster_.Path("work")),
              ElementsAre("layer 0 in attempt 1", "layer 1 in attempt 2"));
}

TEST_F(ServiceKillTest, AKilledWorkerTakesItsProcessAlongAndAnotherFinishes) {
  Daemon& first = cluster_.StartWorker("w1");
  const std::string job = cluster_.Submit(
      {Steps({kStarted, R"({"ignore_sigterm":true})", kNote, kWaitForGo, kResult})});
  const pid_t process = cluster_.AwaitProcess(1);
  first.Signal(SIGKILL);
  EXPECT_TRUE(Await([&] { return !IsRunning(process); })) << "it outlived its worker";
  EXPECT_EQ(first.Wait().signal, SIGKILL);

  cluster_.StartWorker("w2");
  cluster_.AwaitProcess(2);
  cluster_.Go();
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(ended.status().attempt(), 2);
  EXPECT_EQ(ended.status().worker(), "w2");
  ExpectDenseHistory(job);
}

TEST_F(ServiceKillTest, AServerKilledAndRestartedInterruptsNothing) {
  // On a busy machine a worker finds its server again after some seconds.
  cluster_.KillServer();
  cluster_.set_lease("30s");
  cluster_.StartServer();
  cluster_.StartWorker("w1");
  const std::string job = cluster_.Submit(
      {Steps({kStarted, Layer(0), kNote, kWaitForGo,
              R"({"event":{"log":{"severity":"SEVERITY_INFO","text":"while it was away"}}})",
              Layer(1), kResult})});
  const pid_t process = cluster_.AwaitProcess(1);
  cluster_.KillServer();
  cluster_.Go();
  EXPECT_TRUE(Await([&] { return Lines(cluster_.Path("work")).size() == 2; }));
  EXPECT_TRUE(Await([&] { return !IsRunning(process); }));
  cluster_.StartServer();
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED) << ended.ShortDebugString();
  EXPECT_EQ(ended.status().attempt(), 1);
  EXPECT_THAT(Lines(cluster_.Path("work")),
              ElementsAre("layer 0 in attempt 1", "layer 1 in attempt 1"));
  int logged = 0;
  for (const v1::JobEvent& event : cluster_.History(job)) {
    if (event.has_log() && event.log().text() == "while it was away") ++logged;
  }
  EXPECT_EQ(logged, 1);
  ExpectDenseHistory(job);
}

TEST_F(ServiceKillTest, ServerAndWorkerKilledTogetherLoseNoJob) {
  Daemon& first = cluster_.StartWorker("w1");
  const std::string running = cluster_.Submit({Steps({Layer(0), kNote, kWaitForGo, kResult})});
  const std::string queued = cluster_.Submit({kResult});
  cluster_.AwaitProcess(1);
  first.Signal(SIGKILL);
  cluster_.KillServer();
  cluster_.StartServer();
  cluster_.Go();
  cluster_.StartWorker("w1");
  EXPECT_EQ(cluster_.AwaitEnd(running).status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(cluster_.AwaitEnd(queued).status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(Lines(cluster_.Path("work")), ElementsAre("layer 0 in attempt 1"));
}

TEST_F(ServiceKillTest, CancelStopsAJobWithinSeconds) {
  cluster_.StartWorker("w1");
  const std::string polite = cluster_.Submit({Steps({kStarted, kNote, kForever})});
  const pid_t first = cluster_.AwaitProcess(1);
  cluster_.Cancel(polite);
  cluster_.Cancel(polite);
  EXPECT_EQ(cluster_.AwaitEnd(polite).status().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_FALSE(IsRunning(first));

  const std::string stubborn =
      cluster_.Submit({Steps({R"({"ignore_sigterm":true})", kNote, R"({"hang":true})"})});
  const pid_t second = cluster_.AwaitProcess(2);
  cluster_.Cancel(stubborn);
  const absl::Time asked = absl::Now();
  EXPECT_EQ(cluster_.AwaitEnd(stubborn).status().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_LT(absl::Now() - asked, absl::Seconds(10));
  EXPECT_FALSE(IsRunning(second));
  EXPECT_TRUE(Await([&] { return !fs::exists(cluster_.Scratch("w1", stubborn)); }));
}

TEST_F(ServiceKillTest, APausedJobGoesOnFromItsLastLayer) {
  cluster_.StartWorker("w1");
  const std::string job = cluster_.Submit(
      {Steps({kStarted, Layer(0), kNote, kForever}), Steps({Layer(0), Layer(1), kResult})});
  const pid_t process = cluster_.AwaitProcess(1);
  cluster_.Pause(job);
  cluster_.AwaitState(job, v1::JOB_STATE_PAUSED);
  EXPECT_FALSE(IsRunning(process));
  EXPECT_TRUE(fs::exists(cluster_.Scratch("w1", job)));
  // The slot is free meanwhile, and a pause outlives the server.
  EXPECT_EQ(cluster_.AwaitEnd(cluster_.Submit({kResult})).status().state(),
            v1::JOB_STATE_SUCCEEDED);
  cluster_.KillServer();
  cluster_.StartServer();
  EXPECT_EQ(cluster_.Get(job).status().state(), v1::JOB_STATE_PAUSED);
  cluster_.Resume(job);
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED) << ended.ShortDebugString();
  EXPECT_EQ(ended.status().attempt(), 2);
  EXPECT_EQ(ended.status().max_attempts(), 4);
  EXPECT_THAT(Lines(cluster_.Path("work")),
              ElementsAre("layer 0 in attempt 1", "layer 1 in attempt 2"));
  ExpectDenseHistory(job);
}

TEST_F(ServiceKillTest, ARetriedJobGoesOnWithWhatItsWorkerKept) {
  cluster_.StartWorker("w1");
  const std::string crash = Steps({Layer(0), R"({"signal":11})"});
  const std::string job =
      cluster_.Submit({crash, crash, crash, Steps({Layer(0), Layer(1), kResult})});
  EXPECT_EQ(cluster_.AwaitEnd(job).status().state(), v1::JOB_STATE_FAILED);
  cluster_.Retry(job);
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED) << ended.ShortDebugString();
  EXPECT_EQ(ended.status().attempt(), 4);
  EXPECT_EQ(ended.status().max_attempts(), 6);
  EXPECT_THAT(Lines(cluster_.Path("work")),
              ElementsAre("layer 0 in attempt 1", "layer 1 in attempt 4"));
  ExpectDenseHistory(job);
}

TEST_F(ServiceKillTest, AJobWhoseWorkerDiesWhilePausingIsPaused) {
  Daemon& worker = cluster_.StartWorker("w1");
  const std::string job = cluster_.Submit({Steps({kStarted, kNote, kForever})});
  cluster_.AwaitProcess(1);
  worker.Signal(SIGSTOP);
  cluster_.Pause(job);
  EXPECT_EQ(cluster_.Get(job).status().state(), v1::JOB_STATE_PAUSING);
  worker.Signal(SIGKILL);
  cluster_.AwaitState(job, v1::JOB_STATE_PAUSED);
  EXPECT_FALSE(cluster_.Get(job).status().has_error());
  cluster_.Cancel(job);
  EXPECT_EQ(cluster_.AwaitEnd(job).status().state(), v1::JOB_STATE_CANCELLED);
}

TEST_F(ServiceKillTest, AFrozenWorkerIsFencedWhenItThaws) {
  Daemon& frozen = cluster_.StartWorker("w1");
  const std::string job = cluster_.Submit({Steps({kStarted, kNote, kWaitForGo, kResult})});
  const pid_t stale = cluster_.AwaitProcess(1);
  v1::Lease old;
  for (const v1::Worker& worker : cluster_.Workers()) {
    if (worker.leases_size() > 0) old = worker.leases(0);
  }
  ASSERT_EQ(old.job(), job);
  frozen.Signal(SIGSTOP);
  cluster_.StartWorker("w2");
  cluster_.AwaitProcess(2);

  // What the frozen worker would say is refused already.
  const grpc::Status late = cluster_.Beat(old, "w1");
  EXPECT_EQ(late.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(late.error_details(), HasSubstr("LEASE_LOST"));
  frozen.Signal(SIGCONT);
  EXPECT_TRUE(Await([&] { return !IsRunning(stale); })) << "it ran on without a lease";
  EXPECT_EQ(cluster_.Get(job).status().state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(cluster_.Get(job).status().worker(), "w2");

  cluster_.Go();
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(ended.status().worker(), "w2");
  EXPECT_EQ(ended.status().attempt(), 2);
  ExpectDenseHistory(job);
  // The thawed worker is as good as before.
  cluster_.worker("w2").Signal(SIGKILL);
  cluster_.worker("w2").Wait();
  EXPECT_EQ(cluster_.AwaitEnd(cluster_.Submit({kResult})).status().worker(), "w1");
}

TEST_F(ServiceKillTest, AWorkerThatLeavesGivesItsJobBack) {
  Daemon& leaving = cluster_.StartWorker("w1");
  const std::string job =
      cluster_.Submit({Steps({kStarted, kNote, kForever}), Steps({kNote, kResult})});
  const pid_t process = cluster_.AwaitProcess(1);
  leaving.Signal(SIGTERM);
  const ExitStatus status = leaving.Wait();
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_FALSE(IsRunning(process));
  EXPECT_EQ(cluster_.Get(job).status().state(), v1::JOB_STATE_QUEUED);
  EXPECT_TRUE(fs::exists(cluster_.Scratch("w1", job))) << "the next attempt goes on from there";
  cluster_.StartWorker("w1");
  EXPECT_EQ(cluster_.AwaitEnd(job).status().state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(ServiceKillTest, APrivateWorkerLeavesWithItsServer) {
  Daemon& worker = cluster_.StartWorker("w1", {.flags = {"--exit-when-server-gone", "500ms"}});
  cluster_.Submit({Steps({kStarted, kNote, kForever})});
  const pid_t process = cluster_.AwaitProcess(1);
  cluster_.KillServer();
  EXPECT_EQ(worker.Wait().code, 1);
  EXPECT_THAT(worker.log(), HasSubstr("has not answered for"));
  EXPECT_FALSE(IsRunning(process));
}

TEST_F(ServiceKillTest, ADaemonThatEndsIsNotWaitedFor) {
  const absl::Time begin = absl::Now();
  EXPECT_NONFATAL_FAILURE(
      cluster_.StartWorker("w1", {.launcher = {"/bin/sh", "-c", "echo why >&2; exit 3"}}),
      "w1.ready\":\nwhy");
  EXPECT_LT(absl::Now() - begin, absl::Seconds(30));
}

TEST_F(ServiceKillTest, GarbageFromTheProcessIsASystemErrorThatQuotesIt) {
  cluster_.StartWorker("w1");
  const std::string job =
      cluster_.Submit({Steps({kStarted, R"({"print":"terminate called"})", kForever})});
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(ended.status().error().reason(), "EVENT_STREAM_INVALID");
  EXPECT_EQ(ended.status().error().error_class(), v1::ERROR_CLASS_SYSTEM);
  EXPECT_THAT(ended.status().error().message(), HasSubstr("terminate called"));
}

}  // namespace
}  // namespace latentforge
