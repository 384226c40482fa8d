#include "service/token_bucket.h"

#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

const absl::Duration kStart = absl::Hours(1000);

TEST(TokenBucketTest, AMinutesWorthAtOnceAndThenEvenly) {
  TokenBucket bucket;
  for (int i = 0; i < 6; ++i) EXPECT_EQ(bucket.Take(6, kStart), absl::ZeroDuration());
  EXPECT_EQ(bucket.Take(6, kStart), absl::Seconds(10));
  EXPECT_EQ(bucket.Take(6, kStart + absl::Seconds(4)), absl::Seconds(6));
  EXPECT_EQ(bucket.Take(6, kStart + absl::Seconds(10)), absl::ZeroDuration());
  EXPECT_NE(bucket.Take(6, kStart + absl::Seconds(10)), absl::ZeroDuration());
  EXPECT_FALSE(bucket.IsFull(6, kStart + absl::Seconds(69)));
  EXPECT_TRUE(bucket.IsFull(6, kStart + absl::Seconds(70)));
}

TEST(TokenBucketTest, GivesNoMoreThanTheRateInALongTime) {
  TokenBucket bucket;
  int taken = 0;
  for (int i = 0; i < 3600 * 4; ++i) {
    const absl::Duration now = kStart + absl::Milliseconds(250) * i;
    taken += bucket.Take(7, now) == absl::ZeroDuration();
  }
  // A minute's worth at first, and 7 in each of 60 minutes.
  EXPECT_GE(taken, 7 * 60 + 6);
  EXPECT_LE(taken, 7 * 60 + 7);
}

TEST(TokenBucketTest, AClockThatGoesBackGivesNothing) {
  TokenBucket bucket;
  EXPECT_EQ(bucket.Take(1, kStart), absl::ZeroDuration());
  EXPECT_EQ(bucket.Take(1, kStart - absl::Hours(1)), absl::Minutes(1));
  EXPECT_EQ(bucket.Take(1, kStart + absl::Seconds(30)), absl::Seconds(30));
}

TEST(TokenBucketTest, ARateThatChangesHoldsAtOnce) {
  TokenBucket bucket;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(bucket.Take(4, kStart), absl::ZeroDuration());
  EXPECT_NE(bucket.Take(4, kStart), absl::ZeroDuration());
  EXPECT_EQ(bucket.Take(60, kStart), absl::ZeroDuration());
  EXPECT_NE(bucket.Take(2, kStart), absl::ZeroDuration());
}

}  // namespace
}  // namespace latentforge::service
