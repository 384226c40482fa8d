// T25: workers and clients of other versions say things that this server does not know, and leave
// out things that it does. (Databases of earlier versions: tests/service/store.)
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

class OtherVersionsTest : public SchedulerFixture {
 protected:
  // As a message comes over the wire from a version that has one more field.
  template <typename Message>
  static Message FromLaterVersion(const Message& message) {
    Message received;
    // Field 1000, of two bytes.
    EXPECT_TRUE(received.ParseFromString(message.SerializeAsString() + "\xC2\x3E\x02hi"));
    return received;
  }
};

TEST_F(OtherVersionsTest, AWorkerOfTheMinorVersionBeforeIsToldSo) {
  v1::AcquireLeaseRequest request = AcquireRequest("w");
  request.mutable_worker()->set_version("0.0.9");
  Answer answer;
  scheduler_->Acquire(kWorker, request, [&](auto got) { answer = std::move(got); });
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(ReasonOf(answer->status()), "VERSION_MISMATCH");
}

// Without an instance, and without what heartbeats obey: as the first workers were.
TEST_F(OtherVersionsTest, AnOldWorkerRunsAJob) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  ASSERT_EQ(lease.job(), job);
  EXPECT_TRUE(Heartbeat(lease).ok());
  EXPECT_TRUE(Complete(lease, Succeeded()).ok());
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(OtherVersionsTest, AnOldWorkerThatKnowsNoPauseLosesItsLeaseForIt) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  Pause(job);
  for (int i = 0; i < 4; ++i) {
    clock_.Advance(absl::Seconds(10));
    (void)Heartbeat(lease).ok();  // refused once its lease is over
    Tick();
  }
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_PAUSED);
}

TEST_F(OtherVersionsTest, WhatALaterWorkerAddsIsPassedOverOrKept) {
  const std::string job = CreateJob(FromLaterVersion(CreateRequest()));
  const v1::Lease lease = Acquire().lease();
  v1::HeartbeatRequest beat;
  *beat.mutable_lease() = lease;
  beat.set_obeying(static_cast<v1::AttemptCommand>(77));
  EXPECT_TRUE(scheduler_->Heartbeat(kWorker, FromLaterVersion(beat)).ok());
  v1::ReportEventsRequest report;
  *report.mutable_lease() = lease;
  report.add_events()->set_sequence(1);  // of a kind that is not known here
  v1::AttemptEvent& phase = *report.add_events();
  phase.set_sequence(2);
  phase.mutable_phase_started()->set_phase(static_cast<v1::Phase>(77));
  const auto reported = scheduler_->ReportEvents(kWorker, FromLaterVersion(report));
  ASSERT_TRUE(reported.ok()) << reported.status();
  EXPECT_EQ(reported->last_sequence(), 2);
  EXPECT_EQ(GetJob(job).status().phase(), 77);
  v1::CompleteAttemptRequest end;
  end.mutable_error()->set_reason("A_LATER_REASON");
  end.mutable_error()->set_error_class(static_cast<v1::ErrorClass>(77));
  EXPECT_TRUE(Complete(lease, FromLaterVersion(end)).ok());
  EXPECT_EQ(GetJob(job).status().error().reason(), "A_LATER_REASON");
  EXPECT_EQ(GetJob(job).status().error().error_class(), v1::ERROR_CLASS_SYSTEM);
}

// An outcome that only a later version has is none.
TEST_F(OtherVersionsTest, AnOutcomeThatIsNotKnownIsRefusedAndTheJobGoesOn) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  const absl::Status refused = Complete(lease, FromLaterVersion(v1::CompleteAttemptRequest()));
  EXPECT_EQ(ReasonOf(refused), "INVALID_FIELD");
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_RUNNING);
  EXPECT_TRUE(Complete(lease, Succeeded()).ok());
}

}  // namespace
}  // namespace latentforge::service
