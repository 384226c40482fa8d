#include "service/store_clock.h"

#include "gtest/gtest.h"
#include "service/store/sqlite_store.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/faulty_store.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

// The store's clock; to be asked takes `answer_time` on the server's.
class RemoteClock final : public Clock {
 public:
  explicit RemoteClock(FakeClock& server) : server_(server) {}

  absl::Time Now() const override {
    const absl::Time now = time;
    server_.Advance(answer_time);
    return now;
  }
  absl::Duration Monotonic() const override { return server_.Monotonic(); }
  void SleepFor(absl::Duration) override {}

  absl::Time time = absl::FromUnixSeconds(2'000'000'000);
  absl::Duration answer_time;

 private:
  FakeClock& server_;
};

class StoreClockTest : public testing::Test {
 protected:
  StoreClockTest() {
    auto opened = SqliteStore::Open(dir_.path() / "jobs.db", {}, remote_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    below_ = *std::move(opened);
    store_.Use(*below_);
  }

  std::unique_ptr<StoreClock> Start() {
    auto started = StoreClock::Start(store_, server_);
    EXPECT_TRUE(started.ok()) << started.status();
    return *std::move(started);
  }

  TempDir dir_;
  FakeClock server_;  // years behind the store's
  RemoteClock remote_{server_};
  std::unique_ptr<SqliteStore> below_;
  FaultyStore store_;
};

TEST_F(StoreClockTest, GoesOnFromTheStoresTime) {
  const auto clock = Start();
  EXPECT_EQ(clock->Now(), remote_.time);
  server_.Advance(absl::Seconds(5));
  EXPECT_EQ(clock->Now(), remote_.time + absl::Seconds(5));
}

TEST_F(StoreClockTest, FollowsTheStoreWhenAskedTo) {
  const auto clock = Start();
  server_.Advance(absl::Hours(1));
  remote_.time += absl::Hours(1) - absl::Seconds(3);  // the store's clock is slower
  ASSERT_TRUE(clock->Refresh().ok());
  EXPECT_EQ(clock->Now(), remote_.time);
}

TEST_F(StoreClockTest, TakesTheMiddleOfTheQuestionForTheMomentOfTheAnswer) {
  remote_.answer_time = absl::Milliseconds(40);
  const auto clock = Start();
  EXPECT_EQ(clock->Now(), remote_.time + absl::Milliseconds(20));
}

TEST_F(StoreClockTest, ALateAnswerSaysNothing) {
  const auto clock = Start();
  const absl::Time before = remote_.time;
  remote_.time += absl::Hours(1);
  remote_.answer_time = absl::Seconds(3);
  ASSERT_TRUE(clock->Refresh().ok());
  EXPECT_EQ(clock->Now(), before + absl::Seconds(3));
}

TEST_F(StoreClockTest, GoesOnWhileTheStoreIsAway) {
  const auto clock = Start();
  store_.set_away(true);
  EXPECT_EQ(ReasonOf(clock->Refresh()), kStoreDown);
  EXPECT_EQ(ReasonOf(StoreClock::Start(store_, server_).status()), kStoreDown);
  server_.Advance(absl::Minutes(1));
  EXPECT_EQ(clock->Now(), remote_.time + absl::Minutes(1));
}

}  // namespace
}  // namespace latentforge::service
