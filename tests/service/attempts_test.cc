#include "service/attempts.h"

#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::ElementsAre;

class AttemptsTest : public SchedulerFixture {
 protected:
  // One attempt that finishes a phase and fails for now.
  void FailOnce() {
    const v1::Lease lease = Acquire().lease();
    v1::ReportEventsRequest report;
    *report.mutable_lease() = lease;
    report.add_events()->set_sequence(1);
    report.mutable_events(0)->mutable_phase_finished()->set_phase(v1::PHASE_CALIBRATING);
    report.mutable_events(0)->mutable_phase_finished()->set_seconds(12);
    ASSERT_TRUE(scheduler_->ReportEvents(kWorker, report).ok());
    v1::CompleteAttemptRequest failed;
    failed.mutable_error()->set_reason("WORKER_CRASHED");
    failed.mutable_error()->set_message("SIGSEGV");
    failed.mutable_error()->set_error_class(v1::ERROR_CLASS_SYSTEM);
    failed.mutable_error()->set_retryable(true);
    ASSERT_TRUE(Complete(lease, failed).ok());
    clock_.Advance(absl::Minutes(1));
  }

  absl::StatusOr<v1::GetAttemptResponse> Get(const std::string& name) {
    v1::GetAttemptRequest request;
    request.set_name(name);
    return Attempts(*store_, PageTokenCodec("key")).Get(kCaller, request);
  }

  absl::StatusOr<v1::ListAttemptsResponse> List(const v1::ListAttemptsRequest& request) {
    return Attempts(*store_, PageTokenCodec("key")).List(kCaller, request);
  }
};

TEST_F(AttemptsTest, TellsHowEachEnded) {
  const std::string job = CreateJob();
  FailOnce();
  Acquire("w2");
  const auto failed = Get(job + "/attempts/1");
  ASSERT_TRUE(failed.ok()) << failed.status();
  const v1::Attempt& attempt = failed->attempt();
  EXPECT_EQ(attempt.name(), job + "/attempts/1");
  EXPECT_EQ(attempt.worker(), "w");
  EXPECT_EQ(attempt.outcome(), v1::ATTEMPT_OUTCOME_FAILED);
  EXPECT_EQ(attempt.error().message(), "SIGSEGV");
  EXPECT_EQ(attempt.error().error_class(), v1::ERROR_CLASS_SYSTEM);
  ASSERT_EQ(attempt.phases_size(), 1);
  EXPECT_EQ(attempt.phases(0).seconds(), 12);
  EXPECT_TRUE(attempt.has_end_time());
  const auto running = Get(job + "/attempts/2");
  ASSERT_TRUE(running.ok()) << running.status();
  EXPECT_EQ(running->attempt().worker(), "w2");
  EXPECT_EQ(running->attempt().outcome(), v1::ATTEMPT_OUTCOME_RUNNING);
  EXPECT_FALSE(running->attempt().has_end_time());
  EXPECT_FALSE(running->attempt().has_error());
}

TEST_F(AttemptsTest, ListsThemByPageOfOneJob) {
  v1::ListAttemptsRequest request;
  request.set_parent(CreateJob());
  for (int i = 0; i < 3; ++i) FailOnce();
  const std::string other = CreateJob();
  request.set_page_size(2);
  std::vector<std::string> names;
  for (int page = 0; page < 2; ++page) {
    const auto listed = List(request);
    ASSERT_TRUE(listed.ok()) << listed.status();
    for (const v1::Attempt& attempt : listed->attempts()) names.push_back(attempt.name());
    EXPECT_EQ(listed->next_page_token().empty(), page == 1);
    if (page == 0) request.set_page_token(listed->next_page_token());
  }
  EXPECT_THAT(names, ElementsAre("jobs/j1/attempts/1", "jobs/j1/attempts/2", "jobs/j1/attempts/3"));
  request.set_parent(other);
  EXPECT_EQ(ReasonOf(List(request).status()), "BAD_PAGE_TOKEN");
}

TEST_F(AttemptsTest, NamesThatNameNothingAreRefused) {
  const std::string job = CreateJob();
  Acquire();
  EXPECT_EQ(ReasonOf(Get(job + "/attempts/2").status()), "ATTEMPT_NOT_FOUND");
  EXPECT_EQ(ReasonOf(Get("jobs/none/attempts/1").status()), kJobNotFound);
  for (const char* name :
       {"", "jobs/j1", "jobs/j1/attempts/", "jobs/j1/attempts/0", "jobs/j1/attempts/01",
        "jobs/j1/attempts/+1", "jobs/j1/attempts/-1", "jobs/j1/attempts/99999999999",
        "jobs/J/attempts/1", "/attempts/1", "jobs/j1/attempts/1/attempts/1"})
    EXPECT_EQ(ReasonOf(Get(name).status()), "BAD_NAME") << name;
  v1::ListAttemptsRequest list;
  list.set_parent("j1");
  EXPECT_EQ(ReasonOf(List(list).status()), "BAD_NAME");
}

}  // namespace
}  // namespace latentforge::service
