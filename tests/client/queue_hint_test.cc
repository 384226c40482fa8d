#include "client/queue_hint.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_clock.h"

namespace latentforge::client {
namespace {

using testing::StartsWith;

class QueueHintTest : public testing::Test {
 protected:
  QueueHintTest() { job_.mutable_status()->set_state(v1::JOB_STATE_QUEUED); }

  static v1::Job WithReason(const std::string& reason) {
    v1::Job job;
    job.mutable_status()->set_queue_reason(reason);
    return job;
  }

  // What is said within this time.
  std::string Said(absl::Duration time) {
    std::string said;
    for (const absl::Duration end = clock_.Monotonic() + time; clock_.Monotonic() < end;) {
      clock_.Advance(absl::Milliseconds(100));
      said += hint_.Next(job_).value_or("");
    }
    return said;
  }

  FakeClock clock_;
  v1::Job job_;
  absl::StatusOr<v1::Job> seen_ = WithReason("no worker is connected");
  int asked_ = 0;
  QueueHint hint_{"host:1", clock_, [this] {
                    ++asked_;
                    return seen_;
                  }};
};

TEST_F(QueueHintTest, SaysOnceHowToStartAWorker) {
  EXPECT_EQ(Said(absl::Seconds(9)), "");
  EXPECT_EQ(asked_, 0);
  EXPECT_EQ(Said(absl::Seconds(2)),
            "no worker is connected, so the job waits; start a worker for it: latentforge-worker "
            "--server host:1  (latentforge worker list --server host:1 lists them)");
  EXPECT_EQ(Said(absl::Minutes(5)), "");
  EXPECT_EQ(asked_, 1);
  job_.mutable_status()->set_state(v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Said(absl::Seconds(30)), "");
  job_.mutable_status()->set_state(v1::JOB_STATE_QUEUED);
  EXPECT_THAT(Said(absl::Seconds(11)), StartsWith("no worker")) << "it was given back";
}

TEST_F(QueueHintTest, ABusyWorkerOrASilentServerIsNoReason) {
  seen_ = absl::UnavailableError("away");
  EXPECT_EQ(Said(absl::Minutes(1)), "");
  EXPECT_LE(asked_, 6);
  seen_ = WithReason("");
  EXPECT_EQ(Said(absl::Minutes(1)), "");
  seen_ = WithReason("needs 12.3 GiB of memory; the largest of 3 workers gives an attempt 8.0 GiB");
  EXPECT_THAT(Said(absl::Minutes(1)), StartsWith("needs 12.3 GiB of memory; the largest"));
}

TEST_F(QueueHintTest, AnotherWorkerIsNoHelpAgainstALimitOfTheTenant) {
  seen_ = WithReason(
      "tenant search has 3 jobs running, and its max_running_jobs in the tenants file is 3");
  EXPECT_EQ(Said(absl::Minutes(1)),
            "tenant search has 3 jobs running, and its max_running_jobs in the tenants file is 3, "
            "so the job waits until one ends  (latentforge job list --server host:1 lists them)");
}

}  // namespace
}  // namespace latentforge::client
