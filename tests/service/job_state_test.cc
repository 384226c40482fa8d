#include "service/job_state.h"

#include <cmath>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/errors.h"
#include "service/time_util.h"
#include "tests/service/job_state_fixture.h"

namespace latentforge::service {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr v1::JobState Q = v1::JOB_STATE_QUEUED, R = v1::JOB_STATE_RUNNING,
                       C = v1::JOB_STATE_CANCELLING, S = v1::JOB_STATE_SUCCEEDED,
                       F = v1::JOB_STATE_FAILED, X = v1::JOB_STATE_CANCELLED,
                       P = v1::JOB_STATE_PAUSING, H = v1::JOB_STATE_PAUSED;
constexpr v1::JobState kStates[] = {Q, R, C, S, F, X, P, H};
// Outcomes of a cell other than a state: refusals.
constexpr int kLost = -1, kNotQueued = -2, kEnded = -3, kCancelling = -4, kNoRetry = -5;
constexpr const char* kReasons[] = {kLeaseLost, "JOB_NOT_QUEUED", "JOB_TERMINAL", "JOB_CANCELLING",
                                    "JOB_NOT_RETRYABLE"};

struct Row {
  std::string name;
  Command command;
  absl::Duration later;  // when the command comes
  int expected[8];       // after the command, from each of kStates
};

// Names the row instead of printing its bytes.
void PrintTo(const Row& row, std::ostream* out) { *out << row.name; }

class JobStateTable : public testing::TestWithParam<Row> {};

TEST_P(JobStateTable, EveryState) {
  for (int i = 0; i < 8; ++i) {
    const JobRecord before = InState(kStates[i]);
    const absl::StatusOr<Transition> after =
        Decide(before, GetParam().command, kNow + GetParam().later);
    const std::string cell = GetParam().name + " in " + v1::JobState_Name(kStates[i]);
    if (GetParam().expected[i] < 0) {
      ASSERT_FALSE(after.ok()) << cell;
      EXPECT_EQ(ReasonOf(after.status()), kReasons[-GetParam().expected[i] - 1]) << cell;
      continue;
    }
    ASSERT_TRUE(after.ok()) << cell << ": " << after.status();
    const v1::JobState state = after->next.job.status().state();
    EXPECT_EQ(state, GetParam().expected[i]) << cell << " gave " << v1::JobState_Name(state);
    // A change of state is exactly one event, with the next number.
    int changes = 0;
    int64_t sequence = before.job.last_sequence();
    for (const v1::JobEvent& event : after->events) {
      EXPECT_EQ(event.sequence(), ++sequence) << cell;
      changes += event.has_state_changed();
    }
    EXPECT_EQ(changes, state == kStates[i] ? 0 : 1) << cell;
    EXPECT_EQ(after->next.job.last_sequence(), sequence) << cell;
    EXPECT_EQ(after->next.job.has_end_time(), IsTerminal(state)) << cell;
    if (IsTerminal(kStates[i])) {
      EXPECT_EQ(after->changed, state == Q) << cell;
    }
  }
}

constexpr absl::Duration kNone = absl::ZeroDuration();

// What a finished worker says again after its attempt ended is a repeat, for the
// lease that it ended; S, F, X and H here were ended by that very lease.
INSTANTIATE_TEST_SUITE_P(
    All, JobStateTable,
    testing::Values(
        Row{"claim",
            command::Claim{"w2", kLease30},
            kNone,
            {R, kNotQueued, kNotQueued, kNotQueued, kNotQueued, kNotQueued, kNotQueued,
             kNotQueued}},
        Row{"extend",
            command::Extend{kLease, kLease30},
            kNone,
            {kLost, R, C, kLost, kLost, kLost, P, kLost}},
        Row{"stale extend",
            command::Extend{kStale, kLease30},
            kNone,
            {kLost, kLost, kLost, kLost, kLost, kLost, kLost, kLost}},
        Row{"extend of another attempt",
            command::Extend{{2, 1}, kLease30},
            kNone,
            {kLost, kLost, kLost, kLost, kLost, kLost, kLost, kLost}},
        Row{"report",
            command::Report{kLease, {}, kLease30},
            kNone,
            {kLost, R, C, kLost, kLost, kLost, P, kLost}},
        Row{"succeed", command::Succeed{kLease, {}}, kNone, {kLost, S, S, S, F, X, S, H}},
        Row{"stale succeed",
            command::Succeed{kStale, {}},
            kNone,
            {kLost, kLost, kLost, kLost, kLost, kLost, kLost, kLost}},
        Row{"fail for good",
            command::Fail{kLease, Error(v1::ERROR_CLASS_SYSTEM, false)},
            kNone,
            {kLost, F, X, S, F, X, F, H}},
        Row{"fail of the user",
            command::Fail{kLease, Error(v1::ERROR_CLASS_USER, true)},
            kNone,
            {kLost, F, X, S, F, X, F, H}},
        Row{"fail for now",
            command::Fail{kLease, Error(v1::ERROR_CLASS_RESOURCE, true)},
            kNone,
            {kLost, Q, X, S, F, X, H, H}},
        Row{"stale fail",
            command::Fail{kStale, Error(v1::ERROR_CLASS_SYSTEM, true)},
            kNone,
            {kLost, kLost, kLost, kLost, kLost, kLost, kLost, kLost}},
        Row{"stop", command::Stop{kLease}, kNone, {kLost, Q, X, S, F, X, H, H}},
        Row{"release", command::Release{kLease}, kNone, {kLost, Q, X, S, F, X, H, H}},
        Row{"stale release",
            command::Release{kStale},
            kNone,
            {kLost, kLost, kLost, kLost, kLost, kLost, kLost, kLost}},
        Row{"halt", command::Halt{kLease}, kNone, {kLost, Q, X, S, F, X, H, H}},
        Row{"stale halt",
            command::Halt{kStale},
            kNone,
            {kLost, kLost, kLost, kLost, kLost, kLost, kLost, kLost}},
        Row{"pause", command::Pause{}, kNone, {H, P, kCancelling, kEnded, kEnded, kEnded, P, H}},
        Row{"resume", command::Resume{}, kNone, {Q, R, kCancelling, kEnded, kEnded, kEnded, R, Q}},
        Row{"retry",
            command::Retry{},
            kNone,
            {kNoRetry, kNoRetry, kNoRetry, kNoRetry, Q, Q, kNoRetry, kNoRetry}},
        Row{"retry after the deadline",
            command::Retry{},
            absl::Seconds(3600),
            {kNoRetry, kNoRetry, kNoRetry, kNoRetry, kNoRetry, kNoRetry, kNoRetry, kNoRetry}},
        Row{"renew", command::Renew{kLease30}, kNone, {Q, R, C, S, F, X, P, H}},
        Row{"lease not yet over",
            command::ExpireLease{},
            absl::Seconds(29),
            {Q, R, C, S, F, X, P, H}},
        Row{"lease over", command::ExpireLease{}, kLease30, {Q, Q, X, S, F, X, H, H}},
        Row{"deadline not yet",
            command::ExpireDeadline{},
            absl::Seconds(3599),
            {Q, R, C, S, F, X, P, H}},
        Row{"deadline", command::ExpireDeadline{}, absl::Seconds(3600), {F, F, X, S, F, X, F, F}},
        Row{"cancel", command::Cancel{}, kNone, {X, C, C, S, F, X, C, X}}),
    [](const auto& info) {
      std::string name = info.param.name;
      for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
      return name;
    });

TEST(JobStateTest, ClaimRaisesEpochAndAttempt) {
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

TEST(JobStateTest, RetryableErrorsEndAtMaxAttempts) {
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

TEST(JobStateTest, AFullDiskIsTriedElsewhereButNotOnOneMachine) {
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

TEST(JobStateTest, LeaseExpiryCountsAndReleaseDoesNot) {
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

TEST(JobStateTest, AnAttemptThatWasGivenBackMakesRoomForAnother) {
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

TEST(JobStateTest, ACancelledJobHasNoErrorOfAnEarlierAttempt) {
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

TEST(JobStateTest, OnOneMachineALeaseThatEndedWithTheServerDoesNotCount) {
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

TEST(JobStateTest, FailedAttemptWaitsLongerEachTime) {
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

TEST(JobStateTest, APausedAttemptCostsNone) {
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

TEST(JobStateTest, AWorkerThatDoesNotKnowOfPausesLosesItsLease) {
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

TEST(JobStateTest, APauseThatIsTakenBackTooLateQueuesTheJob) {
  JobRecord record = MustDecide(InState(P), command::Resume{}).next;
  ASSERT_EQ(record.job.status().state(), R);
  record = MustDecide(record, command::Halt{kLease}).next;
  EXPECT_EQ(record.job.status().state(), Q);
  EXPECT_EQ(record.claimable_time, kNow);
  EXPECT_EQ(record.counted_attempts, 0);
}

TEST(JobStateTest, AJobThatIsResumedWaitsForNoBackoff) {
  JobRecord record =
      MustDecide(InState(R), command::Fail{kLease, Error(v1::ERROR_CLASS_SYSTEM, true)}).next;
  ASSERT_GT(record.claimable_time, kNow);
  record = MustDecide(record, command::Pause{}).next;
  EXPECT_TRUE(record.job.status().has_error());
  record = MustDecide(record, command::Resume{}).next;
  EXPECT_EQ(record.claimable_time, kNow);
}

TEST(JobStateTest, EachRetryHasAFreshAllowanceOfAttempts) {
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

TEST(JobStateTest, AWorkerOfTheEndedAttemptIsFencedAfterARetry) {
  JobRecord record = MustDecide(InState(C), command::ExpireLease{}, kNow + kLease30).next;
  ASSERT_EQ(record.job.status().state(), X);
  record = MustDecide(record, command::Retry{}).next;
  EXPECT_EQ(ReasonOf(Decide(record, command::Succeed{kLease, {}}, kNow).status()), kLeaseLost);
}

TEST(JobStateTest, AnAttemptKeepsItsPhasesAndItsWholeError) {
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

TEST(JobStateTest, AnAttemptsPhasesAreBounded) {
  JobRecord record = InState(R);
  for (int i = 1; i <= 100; ++i) {
    v1::AttemptEvent event;
    event.set_sequence(i);
    event.mutable_phase_finished()->set_phase(v1::PHASE_FETCHING);
    record = MustDecide(record, command::Report{kLease, {event}, kLease30}).next;
  }
  EXPECT_LE(record.job.status().phases_size(), v1::Phase_ARRAYSIZE);
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

TEST(JobStateTest, TheQueueDeadlineEndsWithTheFirstClaim) {
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

TEST(JobStateTest, TheRunDeadlineIsEachAttemptsOwn) {
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

TEST(JobStateTest, OnlyAUserMovesAJobInTheQueue) {
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

TEST(JobStateTest, SuccessClearsTheErrorOfAnEarlierAttempt) {
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

TEST(JobStateTest, WorkersCannotInventReasons) {
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
