#include "service/watch_tail.h"

#include "service/store_follower.h"
#include "service/watch_session.h"
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

// The fixture is the server that writes; the watchers are at another one.
class WatchTailTest : public SchedulerFixture {
 protected:
  std::unique_ptr<WatchSession> Watch(const std::string& name) {
    v1::WatchJobRequest request;
    request.set_name(name);
    auto session =
        WatchSession::Start(kCaller, faulty_, other_hub_, request, [this] { ++notified_; });
    EXPECT_TRUE(session.ok()) << session.status();
    return *std::move(session);
  }

  // The sequences of the messages that are there now.
  static std::vector<int64_t> Sequences(WatchSession& session) {
    std::vector<int64_t> sequences;
    while (true) {
      const auto next = session.Next();
      EXPECT_TRUE(next.ok()) << next.status();
      if (!next.ok() || !next->has_value()) return sequences;
      sequences.push_back((*next)->has_snapshot() ? 0 : (*next)->event().sequence());
    }
  }

  WatchHub other_hub_;
  WatchTail tail_{faulty_, other_hub_};
  int notified_ = 0;
};

using testing::ElementsAre;
using testing::IsEmpty;

TEST_F(WatchTailTest, EventsOfAnotherServerReachAWatch) {
  const std::string job = CreateJob();
  const auto session = Watch(job);
  EXPECT_THAT(Sequences(*session), ElementsAre(0));
  const v1::Lease lease = Acquire().lease();
  EXPECT_THAT(Sequences(*session), IsEmpty());
  ASSERT_TRUE(tail_.Tick().ok());
  EXPECT_EQ(notified_, 1);
  EXPECT_THAT(Sequences(*session), ElementsAre(2));
  ASSERT_TRUE(Complete(lease, Succeeded()).ok());
  ASSERT_TRUE(tail_.Tick().ok());
  EXPECT_THAT(Sequences(*session), ElementsAre(3));
  EXPECT_TRUE(session->finished());
}

TEST_F(WatchTailTest, AnEventBetweenTheSnapshotAndTheFirstTickIsNotLost) {
  const std::string job = CreateJob();
  const auto session = Watch(job);
  EXPECT_THAT(Sequences(*session), ElementsAre(0));
  const v1::Lease lease = Acquire().lease();
  ASSERT_TRUE(Complete(lease, Succeeded()).ok());
  ASSERT_TRUE(tail_.Tick().ok());
  EXPECT_THAT(Sequences(*session), ElementsAre(2, 3));
}

TEST_F(WatchTailTest, EventsOfBothServersComeOnceAndInOrder) {
  const std::string job = CreateJob();
  const auto session = Watch(job);
  ASSERT_TRUE(tail_.Tick().ok());
  EXPECT_THAT(Sequences(*session), ElementsAre(0));
  Acquire();    // event 2, at the other server
  Cancel(job);  // event 3, which this server published at once
  other_hub_.Publish("j1", *store_->Events("j1", 2, 1));
  EXPECT_THAT(Sequences(*session), ElementsAre(2, 3));
  ASSERT_TRUE(tail_.Tick().ok());
  EXPECT_THAT(Sequences(*session), IsEmpty());
}

TEST_F(WatchTailTest, OneQueryServesAnyNumberOfWatches) {
  std::vector<std::string> jobs;
  std::vector<std::unique_ptr<WatchSession>> sessions;
  for (int i = 0; i < 3; ++i) jobs.push_back(CreateJob());
  for (int i = 0; i < 30; ++i) sessions.push_back(Watch(jobs[i % 3]));
  ASSERT_TRUE(tail_.Tick().ok());
  EXPECT_EQ(faulty_.TakeCalls("LastSequences"), 1);
  faulty_.TakeCalls("Events");
  Cancel(jobs[0]);
  ASSERT_TRUE(tail_.Tick().ok());
  EXPECT_EQ(faulty_.TakeCalls("LastSequences"), 1);
  EXPECT_EQ(faulty_.TakeCalls("Events"), 1);
  EXPECT_THAT(Sequences(*sessions[0]), ElementsAre(0, 2));
  EXPECT_THAT(Sequences(*sessions[27]), ElementsAre(0, 2));
  EXPECT_EQ(faulty_.TakeCalls("Events"), 0);
  sessions.clear();
  ASSERT_TRUE(tail_.Tick().ok());
  EXPECT_EQ(faulty_.TakeCalls("LastSequences"), 0);
}

TEST_F(WatchTailTest, AnOutageDelaysEvents) {
  const std::string job = CreateJob();
  const auto session = Watch(job);
  EXPECT_THAT(Sequences(*session), ElementsAre(0));
  Cancel(job);
  faulty_.set_away(true);
  EXPECT_EQ(ReasonOf(tail_.Tick()), kStoreDown);
  faulty_.set_away(false);
  ASSERT_TRUE(tail_.Tick().ok());
  EXPECT_THAT(Sequences(*session), ElementsAre(2));
}

TEST_F(WatchTailTest, ACorruptEventHoldsBackItsOwnJobAlone) {
  const std::string corrupt = CreateJob();
  const std::string sound = CreateJob();
  const auto of_corrupt = Watch(corrupt);
  const auto of_sound = Watch(sound);
  Cancel(corrupt);
  Cancel(sound);
  auto db = Database::Open(dir_.path() / "jobs.db", Database::Mode::kReadWrite);
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(db->Execute("UPDATE events SET event = x'FF' WHERE ordinal = 1").ok());
  EXPECT_TRUE(absl::IsDataLoss(tail_.Tick()));
  EXPECT_THAT(Sequences(*of_sound), ElementsAre(0, 2));
}

TEST_F(WatchTailTest, TheFollowerTellsWhenTheStoreGoesAndComes) {
  const auto clock = StoreClock::Start(faulty_, clock_);
  ASSERT_TRUE(clock.ok());
  absl::Mutex mutex;
  std::vector<bool> told;
  StoreFollower follower(tail_, **clock, absl::Milliseconds(1), [&](bool reachable) {
    absl::MutexLock lock(&mutex);
    told.push_back(reachable);
  });
  const auto await = [&](size_t count) {
    for (int i = 0; i < 20'000; ++i) {
      {
        absl::MutexLock lock(&mutex);
        if (told.size() >= count) return true;
      }
      RealClock().SleepFor(absl::Milliseconds(1));  // between looks at the other thread
    }
    return false;
  };
  faulty_.set_away(true);
  ASSERT_TRUE(await(1));
  faulty_.set_away(false);
  ASSERT_TRUE(await(2));
  EXPECT_THAT(told, ElementsAre(false, true));
}

}  // namespace
}  // namespace latentforge::service
