#include "client/queue_hint.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_clock.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class QueueHintTest : public testing::Test {
 protected:
  QueueHintTest() { job_.mutable_status()->set_state(v1::JOB_STATE_QUEUED); }

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
  absl::StatusOr<v1::ListWorkersResponse> workers_ = v1::ListWorkersResponse();
  int asked_ = 0;
  QueueHint hint_{"host:1", clock_, [this] {
                    ++asked_;
                    return workers_;
                  }};
};

TEST_F(QueueHintTest, SaysOnceHowToStartAWorker) {
  EXPECT_EQ(Said(absl::Seconds(9)), "");
  EXPECT_EQ(asked_, 0);
  EXPECT_EQ(Said(absl::Seconds(2)),
            "no worker is connected, so the job waits; start one: latentforge-worker --server "
            "host:1  (latentforge worker list --server host:1 lists them)");
  EXPECT_EQ(Said(absl::Minutes(5)), "");
  EXPECT_EQ(asked_, 1);
  job_.mutable_status()->set_state(v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Said(absl::Seconds(30)), "");
  job_.mutable_status()->set_state(v1::JOB_STATE_QUEUED);
  EXPECT_THAT(Said(absl::Seconds(11)), StartsWith("no worker")) << "it was given back";
}

TEST_F(QueueHintTest, ABusyWorkerOrASilentServerIsNoReason) {
  workers_ = absl::UnavailableError("away");
  EXPECT_EQ(Said(absl::Minutes(1)), "");
  EXPECT_LE(asked_, 6);
  workers_ = v1::ListWorkersResponse();
  workers_->add_workers()->mutable_info()->add_devices("cpu");
  EXPECT_EQ(Said(absl::Minutes(1)), "");
  job_.mutable_spec()->set_device("cuda:0");
  EXPECT_THAT(Said(absl::Minutes(1)),
              HasSubstr("no connected worker has CUDA, which device cuda:0"));
}

}  // namespace
}  // namespace latentforge::client
