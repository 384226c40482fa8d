#include "worker/agent/lease_timer.h"

#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

TEST(LeaseTimerTest, EndsBeforeTheServerCanLeaseTheJobAgain) {
  const LeaseTimer timer(absl::Seconds(100), absl::Seconds(30));
  EXPECT_EQ(timer.deadline(), absl::Seconds(127));
  const LeaseTimer brief(absl::Seconds(100), absl::Seconds(1));
  EXPECT_EQ(brief.deadline(), absl::Milliseconds(100'900));
  const LeaseTimer lengthy(absl::Seconds(100), absl::Minutes(10));
  EXPECT_EQ(lengthy.deadline(), absl::Seconds(697));
}

TEST(LeaseTimerTest, CountsFromTheSendingAndNeverGoesBack) {
  LeaseTimer timer(absl::Seconds(0), absl::Seconds(30));
  timer.Extend(absl::Seconds(10), absl::Seconds(30));
  EXPECT_EQ(timer.deadline(), absl::Seconds(37));
  timer.Extend(absl::Seconds(5), absl::Seconds(30));  // an answer that came late
  EXPECT_EQ(timer.deadline(), absl::Seconds(37));
}

TEST(LeaseTimerTest, BoundsWhatTheServerSays) {
  const LeaseTimer negative(absl::Seconds(100), absl::Seconds(-5));
  EXPECT_GT(negative.deadline(), absl::Seconds(100));
  const LeaseTimer endless(absl::Seconds(100), absl::InfiniteDuration());
  EXPECT_LT(endless.deadline(), absl::Hours(25));
}

}  // namespace
}  // namespace latentforge::agent
