// What users and deadlines do to a job, command after command; the table is in job_state_test.cc.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/errors.h"
#include "service/job_state.h"
#include "service/time_util.h"
#include "tests/service/job_state_fixture.h"

namespace latentforge::service {
namespace {

TEST(UserTransitionsTest, ACancelledJobHasNoErrorOfAnEarlierAttempt) {
  JobRecord record =
      MustDecide(InState(R), command::Fail{kLease, Error(v1::ERROR_CLASS_SYSTEM, true)}).next;
  ASSERT_TRUE(record.job.status().has_error());
  EXPECT_FALSE(MustDecide(record, command::Cancel{}).next.job.status().has_error());
  record = MustDecide(record, command::Claim{"w", kLease30}, record.claimable_time).next;
  record = MustDecide(record, command::Cancel{}).next;
  ASSERT_EQ(record.job.status().state(), C);
  const Transition lost = MustDecide(record, command::ExpireLease{}, kNow + absl::Hours(1));
  EXPECT_EQ(lost.next.job.status().state(), X);
  EXPECT_FALSE(lost.next.job.status().has_error());
  EXPECT_FALSE(lost.events[0].state_changed().has_error());
  EXPECT_EQ(lost.attempt->error.reason(), "WORKER_LOST");  // kept with the attempt
}

TEST(UserTransitionsTest, APausedAttemptCostsNone) {
  JobRecord record = InState(R, /*max_attempts=*/1);
  for (int attempt = 1; attempt <= 4; ++attempt) {
    record = MustDecide(record, command::Pause{}).next;
    const Transition halted = MustDecide(record, command::Halt{{attempt, attempt}});
    EXPECT_EQ(halted.next.job.status().state(), H);
    EXPECT_EQ(halted.next.job.status().max_attempts(), attempt + 1);
    EXPECT_EQ(halted.attempt->outcome, AttemptOutcome::kPaused);
    EXPECT_EQ(halted.next.job.status().eta_seconds(), -1);
    record = MustDecide(halted.next, command::Resume{}).next;
    record = MustDecide(record, command::Claim{"w", kLease30}).next;
  }
  record = MustDecide(record, command::Fail{{5, 5}, Error(v1::ERROR_CLASS_SYSTEM, true)}).next;
  EXPECT_EQ(record.job.status().state(), F);
}

TEST(UserTransitionsTest, APauseThatIsTakenBackTooLateQueuesTheJob) {
  JobRecord record = MustDecide(InState(P), command::Resume{}).next;
  ASSERT_EQ(record.job.status().state(), R);
  record = MustDecide(record, command::Halt{kLease}).next;
  EXPECT_EQ(record.job.status().state(), Q);
  EXPECT_EQ(record.claimable_time, kNow);
  EXPECT_EQ(record.counted_attempts, 0);
}

TEST(UserTransitionsTest, AJobThatIsResumedWaitsForNoBackoff) {
  JobRecord record =
      MustDecide(InState(R), command::Fail{kLease, Error(v1::ERROR_CLASS_SYSTEM, true)}).next;
  ASSERT_GT(record.claimable_time, kNow);
  record = MustDecide(record, command::Pause{}).next;
  EXPECT_TRUE(record.job.status().has_error());
  record = MustDecide(record, command::Resume{}).next;
  EXPECT_EQ(record.claimable_time, kNow);
}

TEST(UserTransitionsTest, EachRetryHasAFreshAllowanceOfAttempts) {
  JobRecord record = Queued(2);
  int attempt = 0;
  const auto claim = [&] {
    record = MustDecide(record, command::Claim{"w", kLease30}, record.claimable_time).next;
    EXPECT_EQ(record.job.status().attempt(), ++attempt);
  };
  for (int round = 0; round < 3; ++round) {
    claim();
    record = MustDecide(record, command::Release{{attempt, attempt}}).next;  // costs none
    for (int failure = 0; failure < 2; ++failure) {
      ASSERT_EQ(record.job.status().state(), Q);
      claim();
      const command::Fail fail{{attempt, attempt}, Error(v1::ERROR_CLASS_SYSTEM, true)};
      record = MustDecide(record, fail).next;
    }
    ASSERT_EQ(record.job.status().state(), F) << round;
    record = MustDecide(record, command::Retry{}).next;
    EXPECT_EQ(record.job.status().max_attempts(), attempt + 2);
    EXPECT_FALSE(record.job.status().has_error());
    EXPECT_FALSE(record.job.has_end_time());
    EXPECT_EQ(record.claimable_time, kNow);
  }
}

TEST(UserTransitionsTest, AWorkerOfTheEndedAttemptIsFencedAfterARetry) {
  JobRecord record = MustDecide(InState(C), command::ExpireLease{}, kNow + kLease30).next;
  ASSERT_EQ(record.job.status().state(), X);
  record = MustDecide(record, command::Retry{}).next;
  EXPECT_EQ(ReasonOf(Decide(record, command::Succeed{kLease, {}}, kNow).status()), kLeaseLost);
}

JobRecord WithDeadlines(int queue_seconds, int run_seconds) {
  JobRecord record;
  record.id = "j1";
  record.job.mutable_status()->set_max_attempts(3);
  v1::JobSpec& spec = *record.job.mutable_spec();
  if (queue_seconds > 0) spec.mutable_queue_deadline()->set_seconds(queue_seconds);
  if (run_seconds > 0) spec.mutable_run_deadline()->set_seconds(run_seconds);
  return CreateQueued(record, kNow).next;
}

v1::JobState AfterDeadlines(const JobRecord& record, int seconds) {
  return MustDecide(record, command::ExpireDeadline{}, kNow + absl::Seconds(seconds))
      .next.job.status()
      .state();
}

TEST(UserTransitionsTest, TheQueueDeadlineEndsWithTheFirstClaim) {
  JobRecord record = WithDeadlines(60, 0);
  EXPECT_EQ(AfterDeadlines(record, 59), Q);
  EXPECT_EQ(AfterDeadlines(MustDecide(record, command::Pause{}).next, 60), F);
  const Transition late = MustDecide(record, command::ExpireDeadline{}, kNow + absl::Seconds(60));
  EXPECT_EQ(late.next.job.status().error().reason(), "QUEUE_DEADLINE");
  EXPECT_EQ(late.next.job.status().error().error_class(), v1::ERROR_CLASS_RESOURCE);
  EXPECT_FALSE(late.attempt.has_value());
  const JobRecord again = MustDecide(late.next, command::Retry{}, kNow + absl::Seconds(90)).next;
  EXPECT_EQ(AfterDeadlines(again, 149), Q);
  EXPECT_EQ(AfterDeadlines(again, 150), F);
  record = MustDecide(record, command::Claim{"w", kLease30}).next;
  EXPECT_FALSE(record.job.has_queue_deadline_time());
  record = MustDecide(record, command::Release{kLease}).next;
  EXPECT_EQ(AfterDeadlines(record, 1000), Q);
}

TEST(UserTransitionsTest, TheRunDeadlineIsEachAttemptsOwn) {
  JobRecord record = WithDeadlines(0, 60);
  EXPECT_EQ(AfterDeadlines(record, 1000), Q);
  record = MustDecide(record, command::Claim{"w", kLease30}, kNow + absl::Seconds(100)).next;
  EXPECT_EQ(AfterDeadlines(record, 159), R);
  EXPECT_EQ(AfterDeadlines(MustDecide(record, command::Pause{}).next, 160), P);
  const Transition late = MustDecide(record, command::ExpireDeadline{}, kNow + absl::Seconds(160));
  EXPECT_EQ(late.next.job.status().state(), F);
  EXPECT_EQ(late.attempt->outcome, AttemptOutcome::kDeadline);
  const v1::ConversionError& error = late.next.job.status().error();
  EXPECT_EQ(error.reason(), "JOB_DEADLINE");
  EXPECT_EQ(error.error_class(), v1::ERROR_CLASS_USER);
  EXPECT_FALSE(error.retryable());
  EXPECT_EQ(error.message(), "attempt 1 had not ended after 1m, its run deadline");
  record = MustDecide(record, command::Release{kLease}).next;
  record = MustDecide(record, command::Claim{"w", kLease30}, kNow + absl::Seconds(150)).next;
  EXPECT_EQ(AfterDeadlines(record, 209), R);
}

TEST(UserTransitionsTest, OnlyAUserMovesAJobInTheQueue) {
  JobRecord record = Queued();
  record.job.mutable_spec()->set_priority(v1::PRIORITY_HIGH);
  record = CreateQueued(record, kNow, {.priority_step = absl::Minutes(5)}).next;
  EXPECT_EQ(record.rank_time, kNow - absl::Minutes(5));
  record = MustDecide(record, command::Claim{"w", kLease30}, kNow + absl::Minutes(9)).next;
  record = MustDecide(record, command::Release{kLease}, kNow + absl::Minutes(9)).next;
  EXPECT_EQ(record.rank_time, kNow - absl::Minutes(5));
  EXPECT_EQ(record.queue_time, kNow + absl::Minutes(9));
  record.job.mutable_spec()->set_priority(v1::PRIORITY_LOW);
  record = MustDecide(record, command::Pause{}, kNow + absl::Minutes(9)).next;
  record = MustDecide(record, command::Resume{}, kNow + absl::Minutes(20)).next;
  EXPECT_EQ(record.rank_time, kNow + absl::Minutes(20) + absl::Hours(1));
}

}  // namespace
}  // namespace latentforge::service
