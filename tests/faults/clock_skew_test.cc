// T10: programs whose clock is ten minutes wrong, by libfaketime. A worker whose clock is ahead is
// tested in process only (WrongWallClockTest): Abseil hands the kernel the time to wait until, and
// libfaketime does not reach the kernel's clock, so that each of its waits would last ten minutes.
#include <csignal>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/system/cluster.h"

namespace latentforge::faults {
namespace {

namespace fs = std::filesystem;

// What libfaketime's processes share, named after the first of them. It outlives SIGKILL, and then
// faketime refuses to start as a later process of that number.
std::vector<fs::path> SharedObjects(const std::string& pid) {
  return {"/dev/shm/sem.faketime_sem_" + pid, "/dev/shm/faketime_shm_" + pid};
}

std::vector<std::string> WithClock(const std::string& skew) {
  const std::vector<fs::path> stale = SharedObjects("$$");
  // The monotonic clock of a machine with a wrong wall clock is right.
  return {"/bin/sh", "-c",
          absl::StrCat("rm -f ", stale[0].native(), " ", stale[1].native(),
                       "; export FAKETIME_DONT_FAKE_MONOTONIC=1; exec /usr/bin/faketime -f \"$@\""),
          "sh", skew};
}

// After the end of one that WithClock started.
void RemoveSharedObjects(pid_t pid) {
  std::error_code error;
  for (const fs::path& object : SharedObjects(absl::StrCat(pid))) fs::remove(object, error);
}

// A job that lasts longer than two leases.
void ExpectOneAttempt(Cluster& cluster) {
  const std::string job = cluster.Submit(
      {R"({"event":{"phaseStarted":{"phase":"PHASE_CALIBRATING"}}},{"sleep_ms":4200},)"
       R"({"event":{"result":{"artifactUri":"file:///out"}}})"});
  const v1::Job ended = cluster.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED) << ended.ShortDebugString();
  EXPECT_EQ(ended.status().attempt(), 1);
  EXPECT_GE(ended.end_time().seconds(), ended.create_time().seconds() + 4);
}

TEST(ClockSkewTest, T10AWorkerWhoseClockIsBehindKeepsItsLease) {
  pid_t pid = 0;
  {
    Cluster cluster;
    pid = cluster.StartWorker("w1", {.launcher = WithClock("-10m")}).pid();
    ExpectOneAttempt(cluster);
  }
  RemoveSharedObjects(pid);
}

TEST(ClockSkewTest, WhatAnEarlierProcessOfTheNumberLeftDoesNotMatter) {
  const std::vector<fs::path> left = SharedObjects("$$");
  std::vector<std::string> launcher = {
      "/bin/sh", "-c",
      absl::StrCat(": >", left[0].native(), "; : >", left[1].native(), "; exec \"$@\""), "sh"};
  for (std::string& word : WithClock("-10m")) launcher.push_back(std::move(word));
  pid_t pid = 0;
  {
    Cluster cluster;
    pid = cluster.StartWorker("w1", {.launcher = launcher}).pid();
  }
  RemoveSharedObjects(pid);
}

class ServerClockSkewTest : public testing::TestWithParam<std::string> {};

TEST_P(ServerClockSkewTest, T10AServerWithAWrongClockTakesNoLease) {
  pid_t pid = 0;
  {
    Cluster cluster({.server_launcher = WithClock(GetParam())});
    pid = cluster.server().pid();
    cluster.StartWorker("w1");
    ExpectOneAttempt(cluster);
  }
  RemoveSharedObjects(pid);
}

// Nobody calls it meanwhile: it has to look by itself.
TEST_P(ServerClockSkewTest, T10AServerWithAWrongClockEndsTheLeaseOfADeadWorker) {
  pid_t pid = 0;
  {
    Cluster cluster({.server_launcher = WithClock(GetParam())});
    pid = cluster.server().pid();
    Daemon& worker = cluster.StartWorker("w1");
    const std::string job =
        cluster.Submit({R"({"append":"@/pids","text":"$PID"},{"wait_for":"@/go"})"});
    cluster.AwaitProcess(1);
    worker.Signal(SIGKILL);
    worker.Wait();
    cluster.AwaitState(job, v1::JOB_STATE_QUEUED);
  }
  RemoveSharedObjects(pid);
}

INSTANTIATE_TEST_SUITE_P(TenMinutes, ServerClockSkewTest, testing::Values("+10m", "-10m"));

}  // namespace
}  // namespace latentforge::faults
