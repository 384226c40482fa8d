#include "base/timed_flag.h"

#include <atomic>
#include <thread>

#include "base/clock.h"
#include "gtest/gtest.h"

namespace latentforge {
namespace {

TEST(TimedFlagTest, AWaitEndsAfterItsTime) {
  TimedFlag flag;
  const absl::Duration begin = RealClock().Monotonic();
  EXPECT_FALSE(flag.WaitFor(absl::Milliseconds(50)));
  EXPECT_FALSE(flag.TakeWithin(absl::Milliseconds(50)));
  EXPECT_GE(RealClock().Monotonic() - begin, absl::Milliseconds(100));
}

TEST(TimedFlagTest, NoTimeIsTooShortOrTooLong) {
  TimedFlag flag;
  EXPECT_FALSE(flag.WaitFor(-absl::InfiniteDuration()));
  flag.Set();
  EXPECT_TRUE(flag.WaitFor(-absl::InfiniteDuration()));
  EXPECT_TRUE(flag.WaitFor(absl::InfiniteDuration()));
}

TEST(TimedFlagTest, ItStaysSetUntilItIsTaken) {
  TimedFlag flag;
  EXPECT_FALSE(flag.IsSet());
  flag.Set();
  flag.Set();
  EXPECT_TRUE(flag.WaitFor(absl::ZeroDuration()));
  EXPECT_TRUE(flag.IsSet());
  EXPECT_TRUE(flag.TakeWithin(absl::ZeroDuration()));
  EXPECT_FALSE(flag.IsSet());
  EXPECT_FALSE(flag.TakeWithin(absl::ZeroDuration()));
}

TEST(TimedFlagTest, AllWhoWaitAreWoken) {
  TimedFlag flag;
  std::atomic<int> woken = 0;
  const auto wait = [&] { woken += flag.WaitFor(absl::InfiniteDuration()) ? 1 : 0; };
  std::thread first(wait);
  std::thread second(wait);
  RealClock().SleepFor(absl::Milliseconds(20));
  EXPECT_EQ(woken, 0);
  flag.Set();
  first.join();
  second.join();
  EXPECT_EQ(woken, 2);
}

}  // namespace
}  // namespace latentforge
