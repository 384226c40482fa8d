#include "client/job_tracker.h"

#include "gtest/gtest.h"
#include "tests/client/fake_job_service.h"

namespace latentforge::client {
namespace {

using Change = JobTracker::Change;

TEST(JobTrackerTest, AppliesEventsOnTopOfTheSnapshot) {
  JobTracker tracker;
  EXPECT_EQ(*tracker.Apply(SnapshotOf(v1::JOB_STATE_RUNNING, 4)), Change::kSnapshot);
  EXPECT_EQ(*tracker.Apply(PercentEvent(40, 5)), Change::kEvent);
  EXPECT_EQ(tracker.job().status().percent(), 40);
  EXPECT_EQ(tracker.job().status().phase(), v1::PHASE_CALIBRATING);
  EXPECT_FALSE(tracker.ended());
  v1::WatchJobResponse end = StateEvent(v1::JOB_STATE_FAILED, 6);
  end.mutable_event()->mutable_state_changed()->mutable_error()->set_reason("X");
  EXPECT_EQ(*tracker.Apply(end), Change::kEvent);
  EXPECT_TRUE(tracker.ended());
  EXPECT_EQ(tracker.job().status().error().reason(), "X");
  EXPECT_EQ(tracker.sequence(), 6);
}

TEST(JobTrackerTest, IgnoresRepeatsAndRefusesGaps) {
  JobTracker tracker;
  ASSERT_TRUE(tracker.Apply(SnapshotOf(v1::JOB_STATE_RUNNING, 4)).ok());
  EXPECT_EQ(*tracker.Apply(PercentEvent(10, 4)), Change::kNothing);
  EXPECT_EQ(*tracker.Apply(SnapshotOf(v1::JOB_STATE_SUCCEEDED, 9)), Change::kNothing);
  EXPECT_EQ(tracker.Apply(PercentEvent(10, 6)).status().code(), absl::StatusCode::kDataLoss);
}

TEST(JobTrackerTest, ReplaysHistoryOfAnEndedJobBeforeItEnds) {
  JobTracker tracker(0);
  ASSERT_TRUE(tracker.Apply(SnapshotOf(v1::JOB_STATE_SUCCEEDED, 2)).ok());
  EXPECT_FALSE(tracker.ended());
  EXPECT_EQ(*tracker.Apply(StateEvent(v1::JOB_STATE_RUNNING, 1)), Change::kEvent);
  EXPECT_EQ(tracker.job().status().state(), v1::JOB_STATE_SUCCEEDED);  // the snapshot is newer
  EXPECT_EQ(*tracker.Apply(StateEvent(v1::JOB_STATE_SUCCEEDED, 2)), Change::kEvent);
  EXPECT_TRUE(tracker.ended());
}

TEST(JobTrackerTest, ShowsTheJobAsItWasWhileItReplays) {
  JobTracker tracker(0);
  v1::WatchJobResponse snapshot = SnapshotOf(v1::JOB_STATE_RUNNING, 3);
  snapshot.mutable_snapshot()->mutable_job()->mutable_status()->set_percent(80);
  snapshot.mutable_snapshot()->mutable_job()->mutable_status()->set_max_attempts(3);
  ASSERT_TRUE(tracker.Apply(snapshot).ok());
  EXPECT_TRUE(tracker.replaying());
  ASSERT_TRUE(tracker.Apply(StateEvent(v1::JOB_STATE_RUNNING, 1)).ok());
  EXPECT_EQ(tracker.shown().status().percent(), 0);
  EXPECT_EQ(tracker.shown().status().max_attempts(), 3);
  ASSERT_TRUE(tracker.Apply(PercentEvent(40, 2)).ok());
  EXPECT_EQ(tracker.shown().status().percent(), 40);
  EXPECT_EQ(tracker.job().status().percent(), 80);
  ASSERT_TRUE(tracker.Apply(PercentEvent(79, 3)).ok());
  EXPECT_FALSE(tracker.replaying());
  EXPECT_EQ(tracker.shown().status().percent(), 80);
}

TEST(JobTrackerTest, ANewAttemptBeginsAtNothing) {
  JobTracker tracker;
  ASSERT_TRUE(tracker.Apply(SnapshotOf(v1::JOB_STATE_RUNNING, 1)).ok());
  ASSERT_TRUE(tracker.Apply(PercentEvent(40, 2)).ok());
  v1::WatchJobResponse phase;
  phase.mutable_event()->set_sequence(3);
  phase.mutable_event()->mutable_phase_started()->set_phase(v1::PHASE_EVALUATING);
  ASSERT_TRUE(tracker.Apply(phase).ok());
  EXPECT_EQ(tracker.job().status().percent(), 40);
  EXPECT_EQ(tracker.job().status().eta_seconds(), -1);
  v1::WatchJobResponse queued = StateEvent(v1::JOB_STATE_QUEUED, 4);
  queued.mutable_event()->mutable_state_changed()->mutable_error()->set_reason("WORKER_LOST");
  ASSERT_TRUE(tracker.Apply(queued).ok());
  v1::WatchJobResponse running = StateEvent(v1::JOB_STATE_RUNNING, 5);
  running.mutable_event()->mutable_state_changed()->set_max_attempts(4);
  ASSERT_TRUE(tracker.Apply(running).ok());
  EXPECT_EQ(tracker.job().status().percent(), 0);
  EXPECT_EQ(tracker.job().status().phase(), v1::PHASE_UNSPECIFIED);
  EXPECT_EQ(tracker.job().status().max_attempts(), 4);
  EXPECT_FALSE(tracker.job().status().has_error());
}

TEST(JobTrackerTest, ARetryTakesTheEndBack) {
  JobTracker tracker(0);
  EXPECT_TRUE(tracker.Apply(SnapshotOf(v1::JOB_STATE_QUEUED, 3)).ok());
  EXPECT_TRUE(tracker.Apply(StateEvent(v1::JOB_STATE_QUEUED, 1)).ok());
  EXPECT_TRUE(tracker.Apply(StateEvent(v1::JOB_STATE_FAILED, 2)).ok());
  EXPECT_FALSE(tracker.ended());
  EXPECT_TRUE(tracker.shown().has_end_time());
  EXPECT_TRUE(tracker.Apply(StateEvent(v1::JOB_STATE_QUEUED, 3)).ok());
  EXPECT_TRUE(tracker.Apply(StateEvent(v1::JOB_STATE_CANCELLED, 4)).ok());
  EXPECT_TRUE(tracker.ended());
  EXPECT_TRUE(tracker.Apply(StateEvent(v1::JOB_STATE_QUEUED, 5)).ok());
  EXPECT_FALSE(tracker.job().has_end_time());
}

}  // namespace
}  // namespace latentforge::client
