// T10: programs whose clock is ten minutes wrong, by libfaketime. A worker whose clock is ahead is
// tested in process only (WrongWallClockTest): Abseil hands the kernel the time to wait until, and
// libfaketime does not reach the kernel's clock, so that each of its waits would last ten minutes.
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/system/cluster.h"

namespace latentforge::faults {
namespace {

std::vector<std::string> WithClock(const std::string& skew) {
  // The monotonic clock of a machine with a wrong wall clock is right.
  return {"/usr/bin/env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "/usr/bin/faketime", "-f", skew};
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
  Cluster cluster;
  cluster.StartWorker("w1", {.launcher = WithClock("-10m")});
  ExpectOneAttempt(cluster);
}

class ServerClockSkewTest : public testing::TestWithParam<std::string> {};

TEST_P(ServerClockSkewTest, T10AServerWithAWrongClockTakesNoLease) {
  Cluster cluster({.server_launcher = WithClock(GetParam())});
  cluster.StartWorker("w1");
  ExpectOneAttempt(cluster);
}

INSTANTIATE_TEST_SUITE_P(TenMinutes, ServerClockSkewTest, testing::Values("+10m", "-10m"));

}  // namespace
}  // namespace latentforge::faults
