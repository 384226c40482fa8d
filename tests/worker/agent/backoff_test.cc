#include "worker/agent/backoff.h"

#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

TEST(BackoffTest, DoublesUpToTheLongestPauseAndStartsAgain) {
  Backoff backoff(absl::Milliseconds(100), absl::Milliseconds(350), [] { return 0.5; });
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(75));
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(150));
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(262.5));
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(262.5));
  backoff.Reset();
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(75));
}

TEST(BackoffTest, JitterStaysWithinTheUpperHalf) {
  Backoff shortest(absl::Seconds(1), absl::Seconds(1), [] { return 0.0; });
  Backoff longest(absl::Seconds(1), absl::Seconds(1), [] { return 0.999; });
  EXPECT_EQ(shortest.Next(), absl::Milliseconds(500));
  EXPECT_LT(longest.Next(), absl::Seconds(1));
}

}  // namespace
}  // namespace latentforge::agent
