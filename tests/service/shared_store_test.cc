// What the scheduler does differently over a store that other servers use, and one that
// goes away.
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

class SharedStoreTest : public SchedulerFixture {
 protected:
  SharedStoreTest() {
    faulty_.set_shared(true);
    Restart();
  }

  // The next one that looks at leases.
  void FailedTick() {
    clock_.Advance(absl::Milliseconds(250));
    EXPECT_EQ(ReasonOf(scheduler_->Tick()), kStoreDown);
  }

  int64_t VersionOf(const std::string& id) { return store_->Get(id)->version; }
};

TEST_F(SharedStoreTest, AServerThatStartsWritesNoLeaseOfOthers) {
  const std::string job = CreateJob();
  Acquire();
  const int64_t version = VersionOf("j1");
  clock_.Advance(absl::Seconds(29));
  Restart();
  Tick();
  EXPECT_EQ(VersionOf("j1"), version);
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_RUNNING);
}

TEST_F(SharedStoreTest, AServerThatStartsEndsNoLeaseForTheTimeOfOne) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  clock_.Advance(absl::Hours(1));  // no server was there
  Restart();
  Tick();
  clock_.Advance(absl::Seconds(29));
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_RUNNING);
  EXPECT_TRUE(Heartbeat(lease).ok());  // its worker found the server again
  clock_.Advance(absl::Seconds(29));
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_RUNNING);
  clock_.Advance(absl::Seconds(1));
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_QUEUED);
}

TEST_F(SharedStoreTest, AServerThatHasServedLongEnoughEndsLeases) {
  clock_.Advance(absl::Seconds(30));
  const std::string job = CreateJob();
  Acquire();
  clock_.Advance(absl::Seconds(30));
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_QUEUED);
}

TEST_F(SharedStoreTest, AnOutageOfTheStoreEndsNoLease) {
  clock_.Advance(absl::Seconds(30));
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  faulty_.set_away(true);
  FailedTick();
  EXPECT_EQ(ReasonOf(Heartbeat(lease).status()), kStoreDown);
  clock_.Advance(absl::Minutes(10));
  FailedTick();
  faulty_.set_away(false);
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_RUNNING);
  clock_.Advance(absl::Seconds(29));
  Tick();
  EXPECT_TRUE(Heartbeat(lease).ok());
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_RUNNING);
}

TEST_F(SharedStoreTest, AWorkerThatDiedInAnOutageLosesItsJobALeaseLater) {
  clock_.Advance(absl::Seconds(30));
  const std::string job = CreateJob();
  Acquire();
  faulty_.set_away(true);
  FailedTick();
  clock_.Advance(absl::Minutes(10));
  faulty_.set_away(false);
  Tick();
  clock_.Advance(absl::Seconds(30));
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_QUEUED);
}

TEST_F(SharedStoreTest, WaitingWorkersAreServedAfterAnOutage) {
  Answer answer;
  scheduler_->Acquire(kWorker, AcquireRequest("w", absl::Seconds(20)),
                      [&](auto got) { answer = std::move(got); });
  faulty_.set_away(true);
  FailedTick();
  EXPECT_FALSE(answer.has_value());
  faulty_.set_away(false);
  CreateJob();
  Tick();
  ASSERT_TRUE(answer.has_value() && answer->ok());
  EXPECT_EQ((*answer)->lease().job(), "jobs/j1");
}

}  // namespace
}  // namespace latentforge::service
