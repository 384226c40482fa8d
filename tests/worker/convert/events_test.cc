// Events, reasons and progress.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <limits>

#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/event_writer.h"
#include "worker/convert/progress_meter.h"

namespace latentforge::convert {
namespace {

PhaseCosts CostsOf(double fetching, double calibrating, double evaluating) {
  PhaseCosts costs = {};
  costs[static_cast<size_t>(Phase::kFetching)] = fetching;
  costs[static_cast<size_t>(Phase::kCalibrating)] = calibrating;
  costs[static_cast<size_t>(Phase::kEvaluating)] = evaluating;
  return costs;
}

class ManualClock : public Clock {
 public:
  absl::Time Now() const override {
    return absl::UnixEpoch() + absl::Seconds(86400) + absl::Microseconds(5);
  }
  absl::Duration Monotonic() const override { return now; }
  void SleepFor(absl::Duration duration) override { now += duration; }
  absl::Duration now = absl::Seconds(100);
};

class EventsTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    read_ = UniqueFd(ends[0]);
    write_ = UniqueFd(ends[1]);
    events_ = std::make_unique<EventWriter>(write_.get(), clock_);
  }

  std::vector<Json> Drain() {
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = read(read_.get(), buffer, sizeof(buffer))) > 0;)
      text.append(buffer, size_t(n));
    std::vector<Json> events;
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      events.push_back(ParseJson(line).value());
    }
    return events;
  }

  ManualClock clock_;
  UniqueFd read_;
  UniqueFd write_;
  std::unique_ptr<EventWriter> events_;
};

TEST_F(EventsTest, AreProto3Json) {
  events_->PhaseStarted(Phase::kCalibrating, true);
  events_->PhaseFinished(Phase::kCalibrating, 2, 100);
  events_->Perplexity(PerplexityKind::kConverted, std::nan(""), 1, 8);
  events_->Warning("bytes \xFF");
  events_->Error({"SCRATCH_FULL", ErrorClass::kResource, true}, "disk full", Phase::kPublishing);
  const std::vector<Json> events = Drain();
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0], ParseJson(R"({"sequence":"1","time":"1970-01-02T00:00:00.000005Z",
      "phaseStarted":{"phase":"PHASE_CALIBRATING","resumed":true}})")
                           .value());
  EXPECT_EQ(
      events[1]["phaseFinished"],
      ParseJson(
          R"({"phase":"PHASE_CALIBRATING","seconds":2.0,"tokens":"100","tokensPerSecond":50.0})")
          .value());
  EXPECT_EQ(events[2]["perplexity"]["value"], "NaN");
  EXPECT_EQ(events[3]["log"]["text"], "bytes \xEF\xBF\xBD");
  EXPECT_EQ(
      events[4]["error"],
      ParseJson(
          R"({"reason":"SCRATCH_FULL","message":"disk full","errorClass":"ERROR_CLASS_RESOURCE",
                          "phase":"PHASE_PUBLISHING","retryable":true})")
          .value());
  EXPECT_EQ(events[4]["sequence"], "5");
}

TEST_F(EventsTest, AClosedReaderIsNoticed) {
  signal(SIGPIPE, SIG_IGN);
  read_.Reset();
  EXPECT_FALSE(events_->closed());
  events_->Info("to nobody");
  EXPECT_TRUE(events_->closed());
}

TEST_F(EventsTest, ProgressIsWeightedAndLimited) {
  ProgressMeter meter(clock_, *events_);
  meter.Begin(Phase::kFetching);
  meter.SetCosts({10, 60, 10, 0, 20, 0});
  meter.Begin(Phase::kCalibrating);
  clock_.SleepFor(absl::Milliseconds(100));
  meter.Update(0.1, 10, "too early");
  clock_.SleepFor(absl::Milliseconds(5900));
  meter.Update(0.5, 300, "half");
  const std::vector<Json> events = Drain();
  ASSERT_EQ(events.size(), 3u);
  const Json& half = events[2]["progress"];
  EXPECT_EQ(half["percent"], 40.0);
  EXPECT_EQ(half["phasePercent"], 50.0);
  EXPECT_EQ(half["tokensPerSecond"], 50.0);
  EXPECT_EQ(half["detail"], "half");
  // 30 of 100 took 6 s, 60 are left.
  EXPECT_NEAR(half["etaSeconds"].get<double>(), 12, 1e-9);
  EXPECT_EQ(events[1]["progress"]["etaSeconds"], -1.0);
}

TEST_F(EventsTest, WorkOfEarlierAttemptsIsNoMeasureOfSpeed) {
  ProgressMeter meter(clock_, *events_);
  meter.SetCosts({0, 100, 0, 0, 0, 0});
  meter.Begin(Phase::kCalibrating);
  meter.Resume(0.8);
  clock_.SleepFor(absl::Seconds(10));
  meter.Update(0.9, 10, "");
  EXPECT_NEAR(Drain().back()["progress"]["etaSeconds"].get<double>(), 10, 1e-9);
}

TEST_F(EventsTest, PercentageNeverFallsAndTheEtaIsThatOfTheRunningPhase) {
  ProgressMeter meter(clock_, *events_);
  meter.Begin(Phase::kFetching);
  clock_.SleepFor(absl::Seconds(10));
  meter.Update(0.9, 0, "");  // costs are unknown: nothing counts yet
  meter.End(Phase::kFetching);
  meter.SetCosts(CostsOf(1, 59, 40));
  meter.Begin(Phase::kCalibrating);
  clock_.SleepFor(absl::Seconds(59));
  meter.Update(1, 0, "");
  meter.End(Phase::kCalibrating);
  meter.Begin(Phase::kEvaluating);
  clock_.SleepFor(absl::Milliseconds(1600));
  meter.Update(0.01, 0, "");  // too little to tell
  clock_.SleepFor(absl::Milliseconds(6400));
  meter.Update(0.05, 0, "");  // five times as slow as calibration
  std::vector<double> percents;
  std::vector<double> etas;
  for (const Json& event : Drain()) {
    percents.push_back(event["progress"]["percent"].get<double>());
    etas.push_back(event["progress"]["etaSeconds"].get<double>());
  }
  const std::vector<double> expected = {0, 0, 0, 1, 60, 60, 60, 60.4, 62};
  const std::vector<double> expected_etas = {-1, -1, -1, -1, 40, 40, -1, -1, 152};
  EXPECT_THAT(percents, testing::Pointwise(testing::DoubleNear(1e-9), expected));
  EXPECT_THAT(etas, testing::Pointwise(testing::DoubleNear(1e-9), expected_etas));
}

TEST_F(EventsTest, WhatNeedNotBeDoneCostsNothing) {
  ProgressMeter meter(clock_, *events_);
  meter.SetCosts(CostsOf(1, 95, 4));
  meter.Begin(Phase::kCalibrating);
  meter.Skip();
  meter.End(Phase::kCalibrating);
  meter.Begin(Phase::kEvaluating);
  clock_.SleepFor(absl::Seconds(2));
  meter.Update(0.5, 0, "");
  const std::vector<Json> events = Drain();
  EXPECT_EQ(events[1]["progress"]["percent"], 20.0);
  EXPECT_EQ(events[1]["progress"]["etaSeconds"], -1.0);
  EXPECT_EQ(events.back()["progress"]["percent"], 60.0);
  EXPECT_NEAR(events.back()["progress"]["etaSeconds"].get<double>(), 2, 1e-9);
}

TEST(ErrorReasonTest, FirstReasonWinsAndSurvivesAnnotation) {
  absl::Status status = WithReason(absl::NotFoundError("x"), "SOURCE_NOT_READABLE");
  status = WithReason(Annotate(status, "opening"), "INTERNAL");
  EXPECT_EQ(DescribeError(status).reason, "SOURCE_NOT_READABLE");
  EXPECT_EQ(ExitCode(status), 1);
  EXPECT_TRUE(WithReason(absl::OkStatus(), "INTERNAL").ok());
}

TEST(ErrorReasonTest, CodesDecideWithoutAReason) {
  EXPECT_EQ(DescribeError(absl::ResourceExhaustedError("out of memory")).reason, "OUT_OF_MEMORY");
  EXPECT_EQ(DescribeError(absl::ResourceExhaustedError("no space")).reason, "SCRATCH_FULL");
  EXPECT_EQ(ExitCode(absl::ResourceExhaustedError("no space")), 4);
  EXPECT_EQ(DescribeError(absl::InternalError("?")).reason, "INTERNAL");
  EXPECT_EQ(ExitCode(absl::InternalError("?")), 3);
  EXPECT_EQ(ExitCode(absl::CancelledError("")), 5);
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  const ErrorInfo numerical =
      DescribeError(WithReason(absl::InternalError("nan"), "NUMERICAL_FAILURE"));
  EXPECT_FALSE(numerical.retryable);
  EXPECT_EQ(numerical.error_class, ErrorClass::kSystem);
}

}  // namespace
}  // namespace latentforge::convert
