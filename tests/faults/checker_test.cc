#include "tests/faults/checker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace latentforge::faults {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;

v1::JobEvent Event(int64_t sequence, v1::JobState state) {
  v1::JobEvent event;
  event.set_sequence(sequence);
  event.mutable_state_changed()->set_state(state);
  return event;
}

auto Breaks(char promise, const std::string& what) {
  return ElementsAre(
      AllOf(Field(&Violation::promise, promise), Field(&Violation::what, HasSubstr(what))));
}

// A run with one job that succeeded, and a watch of it from the start.
class CheckerTest : public testing::Test {
 protected:
  void SetUp() override {
    history_.submits["r"] = {"jobs/a"};
    v1::Job& job = history_.jobs["jobs/a"];
    job.mutable_status()->set_state(v1::JOB_STATE_SUCCEEDED);
    job.set_last_sequence(3);
    job.mutable_end_time()->set_seconds(100);
    history_.logs["jobs/a"] = {Event(1, v1::JOB_STATE_QUEUED), Event(2, v1::JOB_STATE_RUNNING),
                               Event(3, v1::JOB_STATE_SUCCEEDED)};
    history_.publications["jobs/a"] = {"attempt 1"};
    history_.watches = {
        {.job = "jobs/a", .events = history_.logs["jobs/a"], .at_end = v1::JOB_STATE_SUCCEEDED}};
  }

  std::vector<v1::JobEvent>& log() { return history_.logs["jobs/a"]; }
  std::vector<v1::JobEvent>& watched() { return history_.watches[0].events; }

  History history_;
};

TEST_F(CheckerTest, FindsNothingInAGoodHistory) {
  history_.submits["unanswered"] = {};
  history_.watches.push_back({.job = "jobs/a", .from_sequence = 2, .events = {log()[2]}});
  history_.cancels["jobs/a"] = absl::FromUnixSeconds(99);
  EXPECT_THAT(Check(history_), IsEmpty());
}

TEST_F(CheckerTest, ALostJob) {
  history_.submits["other"] = {"jobs/b"};
  EXPECT_THAT(Check(history_), Breaks('a', "jobs/b is lost"));
}

TEST_F(CheckerTest, TwoJobsOfOneRequest) {
  history_.jobs["jobs/b"] = history_.jobs["jobs/a"];
  history_.logs["jobs/b"] = log();
  history_.publications["jobs/b"] = {"attempt 1"};
  EXPECT_THAT(Check(history_), Breaks('b', "2 jobs from 1 requests"));
  history_.submits["r"].insert("jobs/b");
  history_.submits["unanswered"] = {};
  EXPECT_THAT(Check(history_), Breaks('b', "r made jobs/a and jobs/b"));
}

TEST_F(CheckerTest, TwoPublicationsOrNone) {
  history_.publications["jobs/a"] = {"attempt 1", "attempt 2"};
  EXPECT_THAT(Check(history_), Breaks('c', "published by attempt 1 and attempt 2"));
  history_.publications.clear();
  EXPECT_THAT(Check(history_), Breaks('c', "never published"));
}

TEST_F(CheckerTest, AJobThatNeverEnds) {
  history_.jobs["jobs/a"].mutable_status()->set_state(v1::JOB_STATE_RUNNING);
  history_.watches.clear();
  EXPECT_THAT(Check(history_), Breaks('c', "is JOB_STATE_RUNNING when all is quiet"));
}

TEST_F(CheckerTest, ATerminalStateThatChanged) {
  log().push_back(Event(4, v1::JOB_STATE_CANCELLED));
  history_.jobs["jobs/a"].set_last_sequence(4);
  EXPECT_THAT(Check(history_), Breaks('d', "event 4 after it was JOB_STATE_SUCCEEDED"));
}

TEST_F(CheckerTest, AStateThatTheLogDoesNotHave) {
  history_.jobs["jobs/a"].mutable_status()->set_state(v1::JOB_STATE_FAILED);
  history_.watches.clear();
  EXPECT_THAT(Check(history_), Breaks('d', "is JOB_STATE_FAILED, its log says"));
}

TEST_F(CheckerTest, AnEndThatAWatchSawOtherwise) {
  history_.watches[0].at_end = v1::JOB_STATE_CANCELLED;
  EXPECT_THAT(Check(history_), Breaks('d', "end as JOB_STATE_CANCELLED"));
}

TEST_F(CheckerTest, AGapInTheLog) {
  log()[2].set_sequence(4);
  history_.watches.clear();
  EXPECT_THAT(Check(history_), Breaks('e', "event 4 in place 3"));
}

TEST_F(CheckerTest, AnEndOfTheLogThatIsMissing) {
  history_.jobs["jobs/a"].set_last_sequence(5);
  EXPECT_THAT(Check(history_), Breaks('e', "3 events and says 5"));
}

TEST_F(CheckerTest, AGapARepeatAndAChangedEventInAWatch) {
  watched().erase(watched().begin() + 1);
  EXPECT_THAT(Check(history_), Breaks('e', "got event 3 instead of 2"));
  watched() = {log()[0], log()[0]};
  EXPECT_THAT(Check(history_), Breaks('e', "got event 1 instead of 2"));
  watched() = {log()[0], Event(2, v1::JOB_STATE_CANCELLING)};
  EXPECT_THAT(Check(history_), Breaks('e', "event 2 of jobs/a is not what a watch was told"));
  watched() = {log()[0], log()[1], log()[2], Event(4, v1::JOB_STATE_SUCCEEDED)};
  EXPECT_THAT(Check(history_), Breaks('e', "event 4 of jobs/a"));
}

TEST_F(CheckerTest, ATornArtifact) {
  history_.torn_artifacts = {"jobs/a"};
  EXPECT_THAT(Check(history_), Breaks('f', "not whole"));
}

TEST_F(CheckerTest, AJobOfAnotherTenant) {
  history_.jobs["jobs/a"].set_tenant("search");
  history_.seen["search"] = {"jobs/a"};
  EXPECT_THAT(Check(history_), IsEmpty());
  history_.seen["ads"] = {"jobs/a"};
  EXPECT_THAT(Check(history_), Breaks('g', "tenant ads saw jobs/a of tenant search"));
}

TEST_F(CheckerTest, ASlowCancellation) {
  history_.cancels["jobs/a"] = absl::FromUnixSeconds(60);
  EXPECT_THAT(Check(history_, {.cancel = absl::Seconds(39)}), Breaks('h', "ended 40s after"));
  EXPECT_THAT(Check(history_, {.cancel = absl::Seconds(41)}), IsEmpty());
}

}  // namespace
}  // namespace latentforge::faults
