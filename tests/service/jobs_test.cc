#include "service/jobs.h"

#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using JobsTest = SchedulerFixture;

TEST_F(JobsTest, CreatedJobsCarryNameStateAndEstimate) {
  const auto created = jobs_->Create(CreateRequest());
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->job().name(), "jobs/j1");
  EXPECT_EQ(created->job().status().state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(created->job().status().max_attempts(), 3);
  EXPECT_EQ(created->job().last_sequence(), 1);
  EXPECT_EQ(created->estimate().peak_memory_bytes(), 7);
}

TEST_F(JobsTest, ValidateOnlyChecksAndCreatesNothing) {
  v1::CreateJobRequest request = CreateRequest();
  request.set_validate_only(true);
  const auto checked = jobs_->Create(request);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->job().name(), "");
  EXPECT_EQ(checked->estimate().peak_memory_bytes(), 7);
  EXPECT_EQ(jobs_->List({})->jobs_size(), 0);
  request.mutable_spec()->mutable_source()->set_uri("bad");
  EXPECT_EQ(ReasonOf(jobs_->Create(request).status()), "SOURCE_NOT_READABLE");
  EXPECT_EQ(observer_["SOURCE_NOT_READABLE"], 1);
}

TEST_F(JobsTest, ARepeatedRequestReturnsItsJobEvenWhenTheInputsAreGone) {
  const std::string job = CreateJob(CreateRequest("r1"));
  const v1::Lease lease = Acquire().lease();
  ASSERT_TRUE(Complete(lease, Succeeded()).ok());
  const auto repeated = jobs_->Create(CreateRequest("r1"));
  ASSERT_TRUE(repeated.ok()) << repeated.status();
  EXPECT_EQ(repeated->job().name(), job);
  EXPECT_EQ(repeated->job().status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(repeated->estimate().peak_memory_bytes(), 7);
  EXPECT_EQ(jobs_->List({})->jobs_size(), 1);
  EXPECT_EQ(observer_["deduplicated"], 1);
}

// A clock is finer than what stores keep.
TEST_F(JobsTest, ARepetitionAndAReadAnswerWhatTheFirstCallDid) {
  clock_.Advance(absl::Nanoseconds(1'234'567'891));
  const auto created = jobs_->Create(CreateRequest("r"));
  ASSERT_TRUE(created.ok()) << created.status();
  const auto repeated = jobs_->Create(CreateRequest("r"));
  ASSERT_TRUE(repeated.ok()) << repeated.status();
  EXPECT_EQ(repeated->ShortDebugString(), created->ShortDebugString());
  v1::Job read = GetJob(created->job().name());
  read.mutable_status()->clear_queue_reason();  // found by reading
  EXPECT_EQ(read.ShortDebugString(), created->job().ShortDebugString());
}

TEST_F(JobsTest, ARepeatAfterARestartReturnsItsJob) {
  const std::string job = CreateJob(CreateRequest("r1"));
  Restart();
  EXPECT_EQ(CreateJob(CreateRequest("r1")), job);
}

TEST_F(JobsTest, ARequestIdWithAnotherBodyIsRefused) {
  const std::string job = CreateJob(CreateRequest("r1"));
  v1::CreateJobRequest other = CreateRequest("r1");
  (*other.mutable_labels())["a"] = "b";
  const absl::Status status = jobs_->Create(other).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), kRequestIdReused);
  EXPECT_THAT(std::string(status.message()), HasSubstr(job));
}

TEST_F(JobsTest, TwoActiveJobsCannotShareAnOutput) {
  v1::CreateJobRequest request = CreateRequest();
  request.mutable_spec()->mutable_output()->set_uri("/out");
  CreateJob(request);
  const absl::Status status = jobs_->Create(request).status();
  EXPECT_EQ(ReasonOf(status), kOutputInUse);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/out"));
}

TEST_F(JobsTest, BadLabelsAndIdsAreListedTogether) {
  v1::CreateJobRequest request = CreateRequest(std::string(65, 'r'));
  (*request.mutable_labels())[""] = "x";
  (*request.mutable_labels())["long"] = std::string(64, 'v');
  const absl::Status status = jobs_->Create(request).status();
  EXPECT_EQ(ReasonOf(status), kInvalidField);
  for (const char* part : {"request_id", "labels.long", "expected 1 to 63"})
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
}

TEST_F(JobsTest, PagesAreCompleteAndBoundToTheFilter) {
  for (int i = 0; i < 5; ++i) {
    v1::CreateJobRequest request = CreateRequest();
    (*request.mutable_labels())["team"] = "nlp";
    CreateJob(request);
  }
  CreateJob();
  v1::ListJobsRequest request;
  request.set_page_size(2);
  (*request.mutable_filter()->mutable_labels())["team"] = "nlp";
  std::vector<std::string> names;
  for (int page = 0; page < 3; ++page) {
    const auto listed = jobs_->List(request);
    ASSERT_TRUE(listed.ok()) << listed.status();
    for (const v1::Job& job : listed->jobs()) names.push_back(job.name());
    EXPECT_EQ(listed->next_page_token().empty(), page == 2);
    if (page == 2) break;
    request.set_page_token(listed->next_page_token());
  }
  EXPECT_THAT(names, ElementsAre("jobs/j5", "jobs/j4", "jobs/j3", "jobs/j2", "jobs/j1"));

  v1::ListJobsRequest other = request;
  other.mutable_filter()->add_states(v1::JOB_STATE_QUEUED);
  EXPECT_EQ(ReasonOf(jobs_->List(other).status()), "BAD_PAGE_TOKEN");
  other = request;
  other.mutable_page_token()->at(5) ^= 1;
  EXPECT_EQ(ReasonOf(jobs_->List(other).status()), "BAD_PAGE_TOKEN");
  other.set_page_token("!");
  EXPECT_EQ(ReasonOf(jobs_->List(other).status()), "BAD_PAGE_TOKEN");
  other = request;
  other.set_page_size(-1);
  EXPECT_EQ(ReasonOf(jobs_->List(other).status()), kInvalidField);
}

TEST_F(JobsTest, AJobCreatedWhilePagingShiftsNothing) {
  for (int i = 0; i < 3; ++i) CreateJob();
  v1::ListJobsRequest request;
  request.set_page_size(2);
  request.set_page_token(jobs_->List(request)->next_page_token());
  CreateJob();
  const auto second = jobs_->List(request);
  ASSERT_EQ(second->jobs_size(), 1);
  EXPECT_EQ(second->jobs(0).name(), "jobs/j1");
}

TEST_F(JobsTest, UnknownStatesInFiltersAreRefused) {
  v1::ListJobsRequest request;
  request.mutable_filter()->add_states(static_cast<v1::JobState>(99));
  EXPECT_EQ(ReasonOf(jobs_->List(request).status()), kInvalidField);
}

TEST_F(JobsTest, OnlyEndedJobsAreDeleted) {
  const std::string job = CreateJob();
  v1::DeleteJobRequest request;
  request.set_name(job);
  const absl::Status early = jobs_->Delete(request).status();
  EXPECT_EQ(early.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(early.message()), HasSubstr("is queued, expected a job that has ended"));
  Cancel(job);
  EXPECT_TRUE(jobs_->Delete(request).ok());
  EXPECT_EQ(ReasonOf(jobs_->Delete(request).status()), kJobNotFound);
}

TEST_F(JobsTest, PauseAndResumeSayWhatTheyRefuse) {
  const std::string job = CreateJob();
  v1::PauseJobRequest pause;
  pause.set_name(job);
  v1::ResumeJobRequest resume;
  resume.set_name(job);
  EXPECT_EQ(jobs_->Pause(pause)->job().status().state(), v1::JOB_STATE_PAUSED);
  EXPECT_EQ(jobs_->Pause(pause)->job().last_sequence(), 2);
  EXPECT_EQ(jobs_->Resume(resume)->job().status().state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(jobs_->Resume(resume)->job().last_sequence(), 3);
  Acquire();
  Cancel(job);
  EXPECT_EQ(ReasonOf(jobs_->Pause(pause).status()), "JOB_CANCELLING");
  clock_.Advance(absl::Seconds(30));
  Tick();
  const absl::Status ended = jobs_->Resume(resume).status();
  EXPECT_EQ(ended.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(ended), "JOB_TERMINAL");
  EXPECT_THAT(
      std::string(ended.message()),
      HasSubstr("job j1 is cancelled, expected one that is queued, running, pausing or paused"));
}

TEST_F(JobsTest, APausedJobKeepsItsOutput) {
  v1::CreateJobRequest request = CreateRequest();
  request.mutable_spec()->mutable_output()->set_uri("/out");
  Pause(CreateJob(request));
  EXPECT_THAT(std::string(jobs_->Create(request).status().message()), HasSubstr("(paused)"));
}

TEST_F(JobsTest, OnlyAFailedOrCancelledJobIsRetried) {
  v1::CreateJobRequest request = CreateRequest();
  request.mutable_spec()->mutable_output()->set_uri("/out");
  v1::RetryJobRequest retry;
  retry.set_name(CreateJob(request));
  const absl::Status early = jobs_->Retry(retry).status();
  EXPECT_EQ(early.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(early), "JOB_NOT_RETRYABLE");
  EXPECT_THAT(std::string(early.message()),
              HasSubstr("job j1 is queued, expected one that failed or was cancelled"));
  Cancel(retry.name());
  const std::string other = CreateJob(request);
  const absl::Status taken = jobs_->Retry(retry).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(taken), kOutputInUse);
  Cancel(other);
  const auto retried = jobs_->Retry(retry);
  ASSERT_TRUE(retried.ok()) << retried.status();
  EXPECT_EQ(retried->job().status().state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(Acquire().lease().job(), retry.name());
}

TEST_F(JobsTest, AnEtagStandsForAStateAndNotForProgress) {
  const std::string job = CreateJob();
  const std::string queued = GetJob(job).etag();
  const v1::Lease lease = Acquire().lease();
  const std::string running = GetJob(job).etag();
  EXPECT_NE(running, queued);
  ASSERT_TRUE(Heartbeat(lease).ok());
  v1::ReportEventsRequest report;
  *report.mutable_lease() = lease;
  report.add_events()->set_sequence(1);
  report.mutable_events(0)->mutable_progress()->set_percent(40);
  ASSERT_TRUE(scheduler_->ReportEvents(kWorker, report).ok());
  EXPECT_EQ(GetJob(job).etag(), running);
  EXPECT_EQ(store_->Events("j1", 1, 1)->front().state_changed().etag(), running);
}

TEST_F(JobsTest, EveryCallThatChangesAJobKnowsEtags) {
  const std::string job = CreateJob();
  const auto call = [&](const std::string& etag, auto request, auto method) {
    request.set_name(job);
    request.set_etag(etag);
    return ((*all_jobs_).*method)(kCaller, request).status();
  };
  const auto all = [&](const std::string& etag) {
    return std::vector<absl::Status>{
        call(etag, v1::PauseJobRequest(), &Jobs::Pause),
        call(etag, v1::ResumeJobRequest(), &Jobs::Resume),
        call(etag, v1::CancelJobRequest(), &Jobs::Cancel),
        call(etag, v1::RetryJobRequest(), &Jobs::Retry),
        call(etag, v1::DeleteJobRequest(), &Jobs::Delete),
    };
  };
  for (const absl::Status& status : all("\"other\"")) {
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
    EXPECT_EQ(ReasonOf(status), "ETAG_MISMATCH");
    EXPECT_THAT(std::string(status.message()), HasSubstr("is queued, expected the etag \"other\""));
  }
  // Two users who look at once: the second is told.
  const std::string seen = GetJob(job).etag();
  EXPECT_TRUE(call(seen, v1::PauseJobRequest(), &Jobs::Pause).ok());
  EXPECT_EQ(ReasonOf(call(seen, v1::CancelJobRequest(), &Jobs::Cancel)), "ETAG_MISMATCH");
  EXPECT_TRUE(call(GetJob(job).etag(), v1::CancelJobRequest(), &Jobs::Cancel).ok());
  EXPECT_TRUE(call(GetJob(job).etag(), v1::DeleteJobRequest(), &Jobs::Delete).ok());
}

TEST_F(JobsTest, BadNamesAreNamed) {
  for (const char* name : {"", "jobs/", "j1", "jobs/A", "jobs/a/b", "jobs/'; drop"}) {
    v1::GetJobRequest request;
    request.set_name(name);
    EXPECT_EQ(ReasonOf(jobs_->Get(request).status()), "BAD_NAME") << name;
  }
  v1::CancelJobRequest unknown;
  unknown.set_name("jobs/nope");
  EXPECT_EQ(jobs_->Cancel(unknown).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace latentforge::service
