#include "service/attempt_events.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/errors.h"
#include "service/time_util.h"
#include "tests/service/job_state_fixture.h"

namespace latentforge::service {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ReportTest : public testing::Test {
 protected:
  static v1::AttemptEvent Progress(int64_t sequence, double percent,
                                   v1::Phase phase = v1::PHASE_CALIBRATING) {
    v1::AttemptEvent event;
    event.set_sequence(sequence);
    event.mutable_progress()->set_phase(phase);
    event.mutable_progress()->set_percent(percent);
    return event;
  }
  static v1::AttemptEvent Started(int64_t sequence, v1::Phase phase) {
    v1::AttemptEvent event;
    event.set_sequence(sequence);
    event.mutable_phase_started()->set_phase(phase);
    return event;
  }
  static Command Report(std::vector<v1::AttemptEvent> events) {
    return command::Report{kLease, std::move(events), kLease30};
  }
};

TEST_F(ReportTest, RepeatsAreIgnored) {
  JobRecord record = MustDecide(InState(v1::JOB_STATE_RUNNING),
                                Report({Started(1, v1::PHASE_FETCHING), Progress(2, 1)}))
                         .next;
  EXPECT_EQ(record.attempt_sequence, 2);
  const Transition again = MustDecide(
      record,
      Report({Started(1, v1::PHASE_FETCHING), Progress(2, 1), Started(3, v1::PHASE_CALIBRATING)}));
  ASSERT_EQ(again.events.size(), 1u);
  EXPECT_EQ(again.events[0].phase_started().phase(), v1::PHASE_CALIBRATING);
  EXPECT_EQ(again.next.attempt_sequence, 3);
}

TEST_F(ReportTest, SequencesMustRise) {
  const auto result =
      Decide(InState(v1::JOB_STATE_RUNNING), Report({Progress(2, 1), Progress(2, 2)}), kNow);
  EXPECT_EQ(ReasonOf(result.status()), "EVENT_OUT_OF_ORDER");
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("sequence 2 follows 2"));
}

TEST_F(ReportTest, ProgressIsCoalescedButTheStatusIsCurrent) {
  JobRecord record =
      MustDecide(InState(v1::JOB_STATE_RUNNING),
                 Report({Progress(1, 1), Progress(2, 2), Progress(3, 3)}), kNow + absl::Seconds(1))
          .next;
  EXPECT_EQ(record.job.last_sequence(), 3);  // queued, running, one progress
  EXPECT_EQ(record.job.status().percent(), 3);
  const Transition soon =
      MustDecide(record, Report({Progress(4, 4)}), kNow + absl::Milliseconds(1900));
  EXPECT_TRUE(soon.events.empty());
  EXPECT_EQ(soon.next.job.status().percent(), 4);
  const Transition later = MustDecide(record, Report({Progress(4, 4)}), kNow + absl::Seconds(2));
  ASSERT_EQ(later.events.size(), 1u);
  EXPECT_EQ(later.events[0].progress().percent(), 4);
  const Transition still = MustDecide(record, Report({Progress(4, 3.05)}), kNow + absl::Seconds(2));
  EXPECT_TRUE(still.events.empty());
  const Transition heartbeat =
      MustDecide(record, Report({Progress(4, 3)}), kNow + absl::Seconds(31));
  EXPECT_EQ(heartbeat.events.size(), 1u);
}

TEST_F(ReportTest, OrderAroundOtherEventsIsKept) {
  const Transition report =
      MustDecide(InState(v1::JOB_STATE_RUNNING),
                 Report({Started(1, v1::PHASE_FETCHING), Progress(2, 5, v1::PHASE_FETCHING),
                         Started(3, v1::PHASE_CALIBRATING), Progress(4, 6)}));
  std::vector<int> kinds;
  for (const v1::JobEvent& event : report.events) kinds.push_back(event.kind_case());
  EXPECT_EQ(report.next.job.status().phase(), v1::PHASE_CALIBRATING);
  EXPECT_EQ(kinds.front(), v1::JobEvent::kPhaseStarted);
  EXPECT_EQ(report.next.job.status().percent(), 6);
}

TEST_F(ReportTest, NonsenseFiguresDoNotPass) {
  v1::AttemptEvent event = Progress(1, std::numeric_limits<double>::quiet_NaN());
  event.mutable_progress()->set_phase_percent(1e300);
  event.mutable_progress()->set_tokens_per_second(-std::numeric_limits<double>::infinity());
  event.mutable_progress()->set_eta_seconds(std::numeric_limits<double>::infinity());
  const Transition report = MustDecide(InState(v1::JOB_STATE_RUNNING), Report({event}));
  const v1::JobStatus& status = report.next.job.status();
  EXPECT_EQ(status.percent(), 0);
  EXPECT_EQ(status.tokens_per_second(), 0);
  EXPECT_EQ(status.eta_seconds(), -1);
}

TEST_F(ReportTest, LongTextIsCutBetweenCharacters) {
  v1::AttemptEvent event;
  event.set_sequence(1);
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "\xC3\xA9";  // é, two bytes
  event.mutable_log()->set_text("x" + text);
  const Transition report = MustDecide(InState(v1::JOB_STATE_RUNNING), Report({event}));
  const std::string& kept = report.events.at(0).log().text();
  EXPECT_EQ(kept.size(), 4095u);  // 4096 would cut the last é in two
}

}  // namespace
}  // namespace latentforge::service
