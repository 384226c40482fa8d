// What workers do to a job, command after command; the table is in job_state_test.cc.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/errors.h"
#include "service/job_state.h"
#include "service/time_util.h"
#include "tests/service/job_state_fixture.h"

namespace latentforge::service {
namespace {

TEST(WorkerTransitionsTest, ClaimRaisesEpochAndAttempt) {
  const JobRecord first = InState(R);
  EXPECT_EQ(first.lease_epoch, 1);
  EXPECT_EQ(first.job.status().attempt(), 1);
  EXPECT_EQ(first.job.status().worker(), "w");
  EXPECT_EQ(first.lease_expire_time, kNow + kLease30);
  const JobRecord requeued = MustDecide(first, command::Release{kLease}).next;
  const Transition second = MustDecide(requeued, command::Claim{"w2", kLease30});
  EXPECT_EQ(second.next.lease_epoch, 2);
  EXPECT_EQ(second.next.job.status().attempt(), 2);
  ASSERT_TRUE(second.attempt.has_value());
  EXPECT_EQ(second.attempt->number, 2);
  EXPECT_EQ(second.attempt->outcome, AttemptOutcome::kRunning);
  // The first worker is fenced off from here on.
  EXPECT_EQ(ReasonOf(Decide(second.next, command::Succeed{kLease, {}}, kNow).status()), kLeaseLost);
}

TEST(WorkerTransitionsTest, RetryableErrorsEndAtMaxAttempts) {
  JobRecord record = Queued(2);
  absl::Time now = kNow;
  for (int attempt = 1; attempt <= 2; ++attempt) {
    now = record.claimable_time;
    record = MustDecide(record, command::Claim{"w", kLease30}, now).next;
    record = MustDecide(record,
                        command::Fail{{attempt, attempt}, Error(v1::ERROR_CLASS_SYSTEM, true)}, now)
                 .next;
    EXPECT_EQ(record.job.status().state(), attempt < 2 ? Q : F);
  }
  EXPECT_EQ(record.job.status().error().reason(), "DISK_FULL");
}

TEST(WorkerTransitionsTest, AFullDiskIsTriedElsewhereButNotOnOneMachine) {
  for (const char* reason : {"SCRATCH_FULL", "OUTPUT_DISK_FULL", "OUT_OF_MEMORY"}) {
    v1::ConversionError error;
    error.set_reason(reason);
    error.set_error_class(v1::ERROR_CLASS_RESOURCE);
    error.set_retryable(true);
    const JobRecord record = InState(R);
    const command::Fail fail{{record.job.status().attempt(), record.lease_epoch}, error};
    const auto elsewhere = Decide(record, fail, kNow);
    ASSERT_TRUE(elsewhere.ok()) << elsewhere.status();
    EXPECT_EQ(elsewhere->next.job.status().state(), Q) << reason;
    const auto here = Decide(record, fail, kNow, {.one_machine = true});
    ASSERT_TRUE(here.ok()) << here.status();
    EXPECT_EQ(here->next.job.status().state(), std::string(reason) == "OUT_OF_MEMORY" ? Q : F)
        << reason;
  }
}

TEST(WorkerTransitionsTest, LeaseExpiryCountsAndReleaseDoesNot) {
  JobRecord record = InState(R, /*max_attempts=*/1);
  record = MustDecide(record, command::Release{kLease}).next;
  ASSERT_EQ(record.job.status().state(), Q);
  record = MustDecide(record, command::Claim{"w", kLease30}).next;
  const Transition expired = MustDecide(record, command::ExpireLease{}, kNow + kLease30);
  EXPECT_EQ(expired.next.job.status().state(), F);
  EXPECT_EQ(expired.next.job.status().error().reason(), "WORKER_LOST");
  EXPECT_EQ(expired.next.job.status().error().error_class(), v1::ERROR_CLASS_SYSTEM);
  ASSERT_TRUE(expired.attempt.has_value());
  EXPECT_EQ(expired.attempt->outcome, AttemptOutcome::kLeaseExpired);
}

TEST(WorkerTransitionsTest, AnAttemptThatWasGivenBackMakesRoomForAnother) {
  JobRecord record = InState(R, /*max_attempts=*/3);
  const Transition released = MustDecide(record, command::Release{kLease});
  EXPECT_EQ(released.next.job.status().max_attempts(), 4);
  EXPECT_EQ(released.events[0].state_changed().max_attempts(), 4);
  record = released.next;
  for (int attempt = 2; attempt <= 4; ++attempt) {
    record = MustDecide(record, command::Claim{"w", kLease30}, record.claimable_time).next;
    EXPECT_EQ(record.job.status().attempt(), attempt);
    record =
        MustDecide(record, command::Fail{{attempt, attempt}, Error(v1::ERROR_CLASS_SYSTEM, true)},
                   record.claimable_time)
            .next;
    EXPECT_EQ(record.job.status().state(), attempt < 4 ? Q : F);
  }
}

TEST(WorkerTransitionsTest, OnOneMachineALeaseThatEndedWithTheServerDoesNotCount) {
  const JobRecord record = InState(R, /*max_attempts=*/1);
  const auto state = [&](bool unheard, bool one_machine) {
    const auto decided = Decide(record, command::ExpireLease{unheard}, kNow + kLease30,
                                {.one_machine = one_machine});
    EXPECT_TRUE(decided.ok()) << decided.status();
    EXPECT_EQ(decided->attempt->outcome, AttemptOutcome::kLeaseExpired);
    EXPECT_EQ(decided->next.counted_attempts, unheard && one_machine ? 0 : 1);
    EXPECT_EQ(decided->next.job.status().max_attempts(), unheard && one_machine ? 2 : 1);
    return decided->next.job.status().state();
  };
  EXPECT_EQ(state(true, true), Q);
  EXPECT_EQ(state(false, true), F);
  EXPECT_EQ(state(true, false), F);
}

TEST(WorkerTransitionsTest, FailedAttemptWaitsLongerEachTime) {
  const StatePolicy policy = {.retry_backoff = absl::Seconds(10)};
  JobRecord record = Queued(10);
  absl::Time now = kNow;
  for (const int seconds : {10, 20, 40, 60, 60}) {
    const int next = record.job.status().attempt() + 1;
    record = MustDecide(record, command::Claim{"w", kLease30}, now, policy).next;
    record = MustDecide(record, command::Fail{{next, next}, Error(v1::ERROR_CLASS_SYSTEM, true)},
                        now, policy)
                 .next;
    EXPECT_EQ(record.claimable_time - now, absl::Seconds(seconds));
    EXPECT_FALSE(Decide(record, command::Claim{"w", kLease30}, now, policy).ok());
    now = record.claimable_time;
  }
}

TEST(WorkerTransitionsTest, AWorkerThatDoesNotKnowOfPausesLosesItsLease) {
  JobRecord record = InState(P, /*max_attempts=*/1);
  const auto extend = [&](bool pausing, absl::Duration later) {
    record = MustDecide(record, command::Extend{kLease, kLease30, pausing}, kNow + later).next;
    return record.lease_expire_time - kNow;
  };
  EXPECT_EQ(extend(false, absl::Seconds(10)), kLease30);
  EXPECT_EQ(extend(true, absl::Seconds(20)), absl::Seconds(50));
  EXPECT_EQ(extend(false, absl::Seconds(40)), absl::Seconds(50));
  v1::AttemptEvent event;
  event.set_sequence(1);
  event.mutable_log()->set_text("still here");
  const Transition reported =
      MustDecide(record, command::Report{kLease, {event}, kLease30}, kNow + absl::Seconds(45));
  EXPECT_EQ(reported.events.size(), 1u);
  record = reported.next;
  EXPECT_EQ(record.lease_expire_time, kNow + absl::Seconds(50));
  const Transition expired = MustDecide(record, command::ExpireLease{}, kNow + absl::Seconds(50));
  EXPECT_EQ(expired.next.job.status().state(), H);
  EXPECT_FALSE(expired.next.job.status().has_error());
  EXPECT_EQ(expired.attempt->outcome, AttemptOutcome::kLeaseExpired);
  EXPECT_EQ(expired.next.counted_attempts, 0);
}

TEST(WorkerTransitionsTest, AnAttemptKeepsItsPhasesAndItsWholeError) {
  std::vector<v1::AttemptEvent> events(2);
  for (int i = 0; i < 2; ++i) {
    events[i].set_sequence(i + 1);
    events[i].mutable_phase_finished()->set_phase(static_cast<v1::Phase>(i + 1));
    events[i].mutable_phase_finished()->set_seconds(i == 0 ? 5 : std::nan(""));
  }
  const Transition reported = MustDecide(InState(R), command::Report{kLease, events, kLease30});
  ASSERT_TRUE(reported.attempt.has_value()) << "shown while it runs";
  EXPECT_EQ(reported.attempt->outcome, AttemptOutcome::kRunning);
  ASSERT_EQ(reported.attempt->phases.size(), 2u);
  EXPECT_EQ(reported.attempt->phases[0].phase(), v1::PHASE_FETCHING);
  EXPECT_EQ(reported.attempt->phases[0].seconds(), 5);
  EXPECT_EQ(reported.attempt->phases[1].seconds(), 0);
  const Transition failed =
      MustDecide(reported.next, command::Fail{kLease, Error(v1::ERROR_CLASS_SYSTEM, true)});
  EXPECT_EQ(failed.attempt->error.message(), "no room");
  EXPECT_EQ(failed.attempt->phases.size(), 2u);
  const Transition next =
      MustDecide(failed.next, command::Claim{"w", kLease30}, failed.next.claimable_time);
  EXPECT_TRUE(next.attempt->phases.empty());
}

TEST(WorkerTransitionsTest, AnAttemptsPhasesAreBounded) {
  JobRecord record = InState(R);
  for (int i = 1; i <= 100; ++i) {
    v1::AttemptEvent event;
    event.set_sequence(i);
    event.mutable_phase_finished()->set_phase(v1::PHASE_FETCHING);
    record = MustDecide(record, command::Report{kLease, {event}, kLease30}).next;
  }
  EXPECT_LE(record.job.status().phases_size(), v1::Phase_ARRAYSIZE);
}

TEST(WorkerTransitionsTest, SuccessClearsTheErrorOfAnEarlierAttempt) {
  JobRecord record =
      MustDecide(InState(R), command::Fail{kLease, Error(v1::ERROR_CLASS_SYSTEM, true)}).next;
  EXPECT_TRUE(record.job.status().has_error());
  record = MustDecide(record, command::Claim{"w", kLease30}, record.claimable_time).next;
  v1::ConversionResult result;
  result.set_artifact_uri("file:///out");
  record = MustDecide(record, command::Succeed{{2, 2}, result}).next;
  EXPECT_FALSE(record.job.status().has_error());
  EXPECT_EQ(record.job.status().result().artifact_uri(), "file:///out");
  EXPECT_EQ(record.job.status().percent(), 100);
}

TEST(WorkerTransitionsTest, WorkersCannotInventReasons) {
  v1::ConversionError error = Error(v1::ERROR_CLASS_UNSPECIFIED, false);
  error.set_reason("drop table; --");
  error.set_message(std::string(100'000, 'x'));
  const JobRecord record = MustDecide(InState(R), command::Fail{kLease, error}).next;
  EXPECT_EQ(record.job.status().error().reason(), "UNKNOWN");
  EXPECT_EQ(record.job.status().error().error_class(), v1::ERROR_CLASS_SYSTEM);
  EXPECT_LE(record.job.status().error().message().size(), 8192u);
}

}  // namespace
}  // namespace latentforge::service
