#include "client/progress_view.h"

#include <string>
#include <vector>

#include "client/progress_text.h"
#include "client/text_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_clock.h"

namespace latentforge::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

class FakeTerminal : public Terminal {
 public:
  bool interactive() const override { return interactive_; }
  bool color() const override { return false; }
  bool unicode() const override { return false; }
  int columns() const override { return 80; }
  void Write(absl::string_view text) override { writes.emplace_back(text); }

  bool interactive_ = true;
  std::vector<std::string> writes;
};

v1::Job RunningJob() {
  v1::Job job;
  v1::JobStatus& status = *job.mutable_status();
  status.set_state(v1::JOB_STATE_RUNNING);
  status.set_phase(v1::PHASE_CALIBRATING);
  status.set_percent(50);
  status.set_eta_seconds(90);
  status.set_tokens_per_second(1234.4);
  status.set_detail("layer 3 of 30");
  return job;
}

v1::JobEvent ProgressEvent() {
  v1::JobEvent event;
  event.mutable_progress();
  return event;
}

v1::JobEvent FinishedEvent() {
  v1::JobEvent event;
  event.mutable_phase_finished()->set_phase(v1::PHASE_CALIBRATING);
  event.mutable_phase_finished()->set_seconds(12.3);
  event.mutable_phase_finished()->set_tokens_per_second(2345);
  return event;
}

TEST(FrameTest, ShowsPhaseBarPercentEtaSpeedAndDetail) {
  EXPECT_THAT(
      BuildFrame(RunningJob(), {.columns = 80, .eta_seconds = 90}),
      ElementsAre("calibrating  ###############...............  50.0 %  ETA 90.0 s  1,234 tokens/s",
                  "  layer 3 of 30"));
}

TEST(FrameTest, ShowsRunningPerplexityAndAttempt) {
  v1::Job job = RunningJob();
  job.mutable_status()->set_attempt(2);
  job.mutable_status()->set_max_attempts(3);
  v1::Perplexity& perplexity = *job.mutable_status()->mutable_perplexity();
  perplexity.set_kind(v1::PERPLEXITY_KIND_CONVERTED);
  perplexity.set_value(14.567);
  perplexity.set_windows_done(3);
  perplexity.set_windows_total(8);
  EXPECT_EQ(BuildFrame(job, {.columns = 100, .unicode = true})[1],
            "  layer 3 of 30 · perplexity 14.57 converted after 3 of 8 windows · attempt 2 of 3");
}

TEST(FrameTest, NeverFillsTheLastColumn) {
  v1::Job job = RunningJob();
  job.mutable_status()->set_detail(std::string(300, 'x').append("\x1b[2J"));
  for (int columns = 20; columns < 140; ++columns) {
    for (const std::string& line :
         BuildFrame(job, {.columns = columns, .unicode = true, .eta_seconds = 5})) {
      EXPECT_LT(DisplayWidth(line), columns) << line;
      EXPECT_THAT(line, Not(HasSubstr("\x1b[2J")));
    }
  }
}

TEST(FrameTest, OddPercentagesStayInTheBar) {
  v1::Job job = RunningJob();
  for (const double percent : {-5.0, 0.0, 100.0, 250.0}) {
    job.mutable_status()->set_percent(percent);
    EXPECT_LT(DisplayWidth(BuildFrame(job, {.columns = 80})[0]), 80) << percent;
  }
}

TEST(LiveViewTest, PaintsOverItselfAndKeepsTheRecordAbove) {
  FakeTerminal terminal;
  FakeClock clock;
  LiveView view(terminal, clock);
  const v1::Job job = RunningJob();
  view.Show(job, nullptr);
  const v1::JobEvent finished = FinishedEvent();
  view.Show(job, &finished);
  view.Finish();
  ASSERT_THAT(terminal.writes, SizeIs(3));
  const std::string erase = "\x1b[1A\x1b[2K\x1b[1A\x1b[2K";
  EXPECT_THAT(terminal.writes[0], Not(HasSubstr("\x1b")));
  EXPECT_THAT(
      terminal.writes[1],
      testing::StartsWith(erase + "calibrating done in 12.3 s, 2,345 tokens/s\ncalibrating  "));
  EXPECT_EQ(terminal.writes[2], erase);
}

TEST(LiveViewTest, PaintsAtMostTenTimesASecond) {
  FakeTerminal terminal;
  FakeClock clock;
  LiveView view(terminal, clock);
  const v1::JobEvent progress = ProgressEvent();
  for (int i = 0; i < 1000; ++i) {
    view.Show(RunningJob(), &progress);
    clock.Advance(absl::Milliseconds(1));
  }
  EXPECT_THAT(terminal.writes, SizeIs(10));
}

TEST(LiveViewTest, EtaCountsDownBetweenEvents) {
  FakeTerminal terminal;
  FakeClock clock;
  LiveView view(terminal, clock);
  view.Show(RunningJob(), nullptr);
  clock.Advance(absl::Seconds(60));
  view.Tick();
  EXPECT_THAT(terminal.writes.back(), HasSubstr("ETA 30.0 s"));
  clock.Advance(absl::Seconds(60));
  view.Tick();
  EXPECT_THAT(terminal.writes.back(), HasSubstr("ETA 0.0 s"));
}

TEST(LiveViewTest, AnEndedJobLeavesNoBar) {
  FakeTerminal terminal;
  FakeClock clock;
  LiveView view(terminal, clock);
  v1::Job job = RunningJob();
  view.Show(job, nullptr);
  job.mutable_status()->set_state(v1::JOB_STATE_SUCCEEDED);
  v1::JobEvent event;
  event.mutable_state_changed()->set_state(v1::JOB_STATE_SUCCEEDED);
  view.Show(job, &event);
  EXPECT_THAT(terminal.writes.back(), testing::EndsWith("\x1b[2Ksucceeded\n"));
}

TEST(PlainViewTest, PrintsChangesAtOnceAndProgressSeldom) {
  FakeTerminal terminal;
  FakeClock clock;
  PlainView view(terminal, clock, absl::Seconds(5));
  const v1::JobEvent progress = ProgressEvent();
  view.Show(RunningJob(), nullptr);
  for (int i = 0; i < 11; ++i) {
    clock.Advance(absl::Seconds(1));
    view.Show(RunningJob(), &progress);
  }
  const v1::JobEvent finished = FinishedEvent();
  view.Show(RunningJob(), &finished);
  const std::string line = "calibrating 50 %, 1,234 tokens/s, ETA 90.0 s, layer 3 of 30\n";
  EXPECT_THAT(terminal.writes,
              ElementsAre(line, line, line, "calibrating done in 12.3 s, 2,345 tokens/s\n"));
}

TEST(EventLineTest, MessagesAndFailuresAreKept) {
  v1::JobEvent event;
  event.mutable_log()->set_text("held back 5 %\n");
  event.mutable_log()->set_severity(v1::LogLine::SEVERITY_INFO);
  EXPECT_EQ(EventLine(event, 3), "held back 5 %?");
  event.mutable_log()->set_severity(v1::LogLine::SEVERITY_WARNING);
  EXPECT_EQ(EventLine(event, 3), "warning: held back 5 %?");
  event.mutable_state_changed()->set_state(v1::JOB_STATE_QUEUED);
  event.mutable_state_changed()->set_attempt(1);
  event.mutable_state_changed()->mutable_error()->set_message("the worker died");
  event.mutable_state_changed()->mutable_error()->set_reason("WORKER_LOST");
  EXPECT_EQ(EventLine(event, 3),
            "attempt 1 of 3 failed, trying again: the worker died [WORKER_LOST]");
  // The command's error says why.
  event.mutable_state_changed()->set_state(v1::JOB_STATE_FAILED);
  EXPECT_EQ(EventLine(event, 3), "failed");
}

TEST(ProgressLineTest, AJobThatNobodyHasTakenHasNoShare) {
  v1::Job job;
  job.mutable_status()->set_state(v1::JOB_STATE_QUEUED);
  EXPECT_EQ(ProgressLine(job), "queued");
}

TEST(MakeProgressViewTest, AnimatesOnlyOnATerminal) {
  FakeTerminal terminal;
  FakeClock clock;
  EXPECT_NE(dynamic_cast<LiveView*>(MakeProgressView(terminal, clock).get()), nullptr);
  terminal.interactive_ = false;
  EXPECT_NE(dynamic_cast<PlainView*>(MakeProgressView(terminal, clock).get()), nullptr);
}

}  // namespace
}  // namespace latentforge::client
