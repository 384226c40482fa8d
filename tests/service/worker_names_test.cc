// Two processes that call themselves by one worker's name.
#include <memory>
#include <string>

#include "service/scheduler.h"
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

// Asks for work as a process of its own, and ticks.
class WorkerNameTest : public SchedulerFixture {
 protected:
  absl::StatusOr<v1::AcquireLeaseResponse> AcquireAs(const std::string& instance,
                                                     absl::Duration wait = absl::ZeroDuration()) {
    v1::AcquireLeaseRequest request = AcquireRequest("w", wait);
    request.mutable_worker()->set_instance(instance);
    request.mutable_worker()->set_hostname("host-of-" + instance);
    answer_ = std::make_shared<Answer>();
    ticket_ =
        scheduler_->Acquire(kWorker, request, [answer = answer_](auto got) { *answer = got; });
    Tick();
    if (answer_->has_value()) return **answer_;
    return absl::UnknownError("waits");
  }

  // The answer to the last AcquireAs, and its ticket.
  std::shared_ptr<Answer> answer_;
  int64_t ticket_ = 0;
};

TEST_F(WorkerNameTest, ASecondProcessOfALiveWorkersNameIsRefused) {
  ASSERT_TRUE(AcquireAs("first").ok());
  clock_.Advance(absl::Seconds(29));
  const absl::Status refused = AcquireAs("second").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(refused), kWorkerNameTaken);
  for (const char* part :
       {"worker named w", "host-of-first", "alive since ", "called 29 s ago", "--name"})
    EXPECT_THAT(std::string(refused.message()), HasSubstr(part));
  EXPECT_TRUE(AcquireAs("first").ok()) << "the one that has the name keeps it";
  EXPECT_TRUE(AcquireAs("").ok()) << "who names no process is not told apart";
}

TEST_F(WorkerNameTest, TheNameIsFreeOnceItsHolderWasSilentForALease) {
  CreateJob();
  const auto grant = AcquireAs("first");
  ASSERT_TRUE(grant.ok() && grant->has_lease());
  clock_.Advance(absl::Seconds(20));
  ASSERT_TRUE(Heartbeat(grant->lease()).ok());
  clock_.Advance(absl::Seconds(29));
  EXPECT_EQ(ReasonOf(AcquireAs("second").status()), kWorkerNameTaken) << "29 s after a heartbeat";
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(AcquireAs("second").ok());
  EXPECT_EQ(ReasonOf(AcquireAs("first").status()), kWorkerNameTaken) << "it has lost the name";
}

TEST_F(WorkerNameTest, AWorkerThatWaitsIsAlive) {
  EXPECT_FALSE(AcquireAs("first", absl::Seconds(30)).ok());
  const auto waiting = answer_;
  clock_.Advance(absl::Seconds(29));
  EXPECT_THAT(std::string(AcquireAs("second").status().message()), HasSubstr("called 0 s ago"));
  clock_.Advance(absl::Seconds(1));
  Tick();
  EXPECT_TRUE(waiting->has_value()) << "the wait is over";
  clock_.Advance(absl::Seconds(29));
  EXPECT_EQ(ReasonOf(AcquireAs("second").status()), kWorkerNameTaken);
}

TEST_F(WorkerNameTest, AWorkerThatHungUpOrGaveItsLeaseBackLeavesItsName) {
  EXPECT_FALSE(AcquireAs("first", absl::Seconds(30)).ok());
  EXPECT_EQ(scheduler_->ListWorkers({})->workers_size(), 1);
  EXPECT_TRUE(scheduler_->Abandon(ticket_));
  EXPECT_EQ(scheduler_->ListWorkers({})->workers_size(), 0);
  EXPECT_TRUE(AcquireAs("second").ok());
  EXPECT_EQ(scheduler_->ListWorkers({})->workers_size(), 1);

  CreateJob();
  const auto grant = AcquireAs("second");
  ASSERT_TRUE(grant.ok() && grant->has_lease());
  EXPECT_EQ(ReasonOf(AcquireAs("third").status()), kWorkerNameTaken);
  v1::CompleteAttemptRequest released;
  released.mutable_released();
  ASSERT_TRUE(Complete(grant->lease(), released).ok());
  EXPECT_TRUE(AcquireAs("third").ok());
}

}  // namespace
}  // namespace latentforge::service
