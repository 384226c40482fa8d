// A lease belongs to the subject that acquired it.
#include "service/log_intake.h"
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

class LeaseHolderTest : public SchedulerFixture {
 protected:
  inline static const Identity kOther = {"w2", kDefaultTenant, Role::kWorker};

  template <typename Request>
  static Request Under(const v1::Lease& lease) {
    Request request;
    *request.mutable_lease() = lease;
    return request;
  }

  v1::CompleteAttemptRequest Success(const v1::Lease& lease) {
    v1::CompleteAttemptRequest request = Succeeded();
    *request.mutable_lease() = lease;
    return request;
  }

  // How each call of `caller` under the lease ends; the last one ends the attempt.
  std::vector<absl::Status> Try(const Identity& caller, const v1::Lease& lease) {
    return {scheduler_->Heartbeat(caller, Under<v1::HeartbeatRequest>(lease)).status(),
            scheduler_->ReportEvents(caller, Under<v1::ReportEventsRequest>(lease)).status(),
            logs_.Append(caller, Under<v1::AppendLogsRequest>(lease)).status(),
            scheduler_->Complete(caller, Success(lease)).status()};
  }

  LogIntake logs_{*engine_, {}};
};

TEST_F(LeaseHolderTest, AnotherSubjectIsRefusedAndCountedAndChangesNothing) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  const int64_t version = store_->Get("j1")->version;
  for (const absl::Status& status : Try(kOther, lease)) {
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(ReasonOf(status), "LEASE_HELD_BY_ANOTHER");
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("attempt 1, epoch 1 of job j1 was not acquired by w2"));
  }
  EXPECT_EQ(store_->Get("j1")->version, version);
  for (const char* operation : {"heartbeat", "report", "logs", "complete"})
    EXPECT_EQ(observer_[operation], 1) << operation;
  for (const absl::Status& status : Try(kWorker, lease)) EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(LeaseHolderTest, OnlyTheHolderMayRepeatTheEnd) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  ASSERT_TRUE(scheduler_->Complete(kWorker, Success(lease)).ok());
  EXPECT_TRUE(scheduler_->Complete(kWorker, Success(lease)).ok());
  EXPECT_EQ(ReasonOf(scheduler_->Complete(kOther, Success(lease)).status()),
            "LEASE_HELD_BY_ANOTHER");
}

TEST_F(LeaseHolderTest, TheHolderIsKeptAcrossARestart) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  Restart();
  const auto beat = Under<v1::HeartbeatRequest>(lease);
  EXPECT_EQ(ReasonOf(scheduler_->Heartbeat(kOther, beat).status()), "LEASE_HELD_BY_ANOTHER");
  EXPECT_TRUE(scheduler_->Heartbeat(kWorker, beat).ok());
}

TEST_F(LeaseHolderTest, ALeaseThatIsOverIsLostWhoeverAsks) {
  CreateJob();
  const v1::Lease first = Acquire().lease();
  v1::CompleteAttemptRequest release = Under<v1::CompleteAttemptRequest>(first);
  release.mutable_released();
  ASSERT_TRUE(scheduler_->Complete(kWorker, release).ok());
  const v1::Lease second = Acquire("another").lease();
  EXPECT_EQ(second.lease_epoch(), 2);
  for (const Identity& caller : {kWorker, kOther})
    EXPECT_EQ(ReasonOf(scheduler_->Heartbeat(caller, Under<v1::HeartbeatRequest>(first)).status()),
              kLeaseLost);
}

TEST_F(LeaseHolderTest, ALeaseOfAServerThatKeepsNoSubjectsIsAnybodys) {
  CreateJob();
  v1::Lease lease = Acquire().lease();
  // It raises the epoch, and leaves what it does not know as it was.
  JobUpdate older;
  older.record = *store_->Get("j1");
  older.expected_version = older.record.version;
  older.record.lease_epoch += 1;
  ASSERT_TRUE(store_->Commit(older).ok());
  lease.set_lease_epoch(2);
  for (const Identity& caller : {kOther, kWorker})
    EXPECT_TRUE(scheduler_->Heartbeat(caller, Under<v1::HeartbeatRequest>(lease)).ok());
}

}  // namespace
}  // namespace latentforge::service
