#include "service/job_state.h"

#include <cmath>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/errors.h"
#include "service/time_util.h"
#include "tests/service/job_state_fixture.h"

namespace latentforge::service {
namespace {

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
        Row{"reject",
            command::Reject{Error(v1::ERROR_CLASS_USER, false)},
            kNone,
            {F, kNotQueued, kNotQueued, kNotQueued, kNotQueued, kNotQueued, kNotQueued,
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

}  // namespace
}  // namespace latentforge::service
