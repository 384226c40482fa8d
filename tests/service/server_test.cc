#include "service/server.h"

#include <thread>

#include "gmock/gmock.h"
#include "tests/service/server_fixture.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

TEST_F(ServerTest, AJobRunsFromCreationToItsEndUnderAWatch) {
  Start(Options());
  const std::string job = CreateJob();
  Context context;
  const auto watch = client_->jobs->WatchJob(&context, WatchRequest(job, 0));
  std::thread worker([&] { EXPECT_TRUE(client_->Succeed(client_->Acquire().lease()).ok()); });
  v1::WatchJobResponse message;
  ASSERT_TRUE(watch->Read(&message));
  EXPECT_EQ(message.snapshot().job().name(), job);
  std::vector<int> states;
  int64_t sequence = 0;
  while (watch->Read(&message)) {
    EXPECT_EQ(message.event().sequence(), ++sequence);
    states.push_back(message.event().state_changed().state());
  }
  worker.join();
  EXPECT_TRUE(watch->Finish().ok());
  EXPECT_THAT(states, testing::ElementsAre(v1::JOB_STATE_QUEUED, v1::JOB_STATE_RUNNING,
                                           v1::JOB_STATE_SUCCEEDED));
}

TEST_F(ServerTest, APausedJobGoesOnWhenItIsResumed) {
  Start(Options());
  v1::PauseJobRequest pause;
  pause.set_name(CreateJob());
  v1::PauseJobResponse paused;
  Context pausing;
  ASSERT_TRUE(client_->jobs->PauseJob(&pausing, pause, &paused).ok());
  EXPECT_EQ(paused.job().status().state(), v1::JOB_STATE_PAUSED);
  v1::ResumeJobRequest resume;
  resume.set_name(pause.name());
  v1::ResumeJobResponse resumed;
  Context resuming;
  ASSERT_TRUE(client_->jobs->ResumeJob(&resuming, resume, &resumed).ok());
  EXPECT_EQ(resumed.job().status().state(), v1::JOB_STATE_QUEUED);
  ASSERT_TRUE(client_->Succeed(client_->Acquire().lease()).ok());
  Context late;
  EXPECT_EQ(ReasonOf(client_->jobs->PauseJob(&late, pause, &paused)), "JOB_TERMINAL");
}

TEST_F(ServerTest, AttemptsAreACollectionOfTheirJob) {
  Start(Options());
  const std::string job = CreateJob();
  ASSERT_TRUE(client_->Succeed(client_->Acquire().lease()).ok());
  v1::ListAttemptsRequest list;
  list.set_parent(job);
  v1::ListAttemptsResponse listed;
  Context listing;
  ASSERT_TRUE(client_->jobs->ListAttempts(&listing, list, &listed).ok());
  ASSERT_EQ(listed.attempts_size(), 1);
  EXPECT_EQ(listed.attempts(0).outcome(), v1::ATTEMPT_OUTCOME_SUCCEEDED);
  v1::GetAttemptRequest get;
  get.set_name(listed.attempts(0).name());
  v1::GetAttemptResponse got;
  Context getting;
  ASSERT_TRUE(client_->jobs->GetAttempt(&getting, get, &got).ok());
  EXPECT_EQ(got.attempt().worker(), "w");
}

TEST_F(ServerTest, AnEndedJobIsRetriedOrDeletedWhenItsTimeIsOver) {
  ServerOptions options = Options();
  options.default_ttl = absl::Milliseconds(500);
  Start(options);
  const std::string job = CreateJob();
  ASSERT_TRUE(client_->Cancel(job).ok());
  v1::RetryJobRequest retry;
  retry.set_name(job);
  v1::RetryJobResponse retried;
  Context retrying;
  ASSERT_TRUE(client_->jobs->RetryJob(&retrying, retry, &retried).ok());
  EXPECT_EQ(retried.job().status().state(), v1::JOB_STATE_QUEUED);
  ASSERT_TRUE(client_->Cancel(job).ok());
  const absl::Time patience = absl::Now() + absl::Seconds(30);
  v1::GetJobRequest request;
  request.set_name(job);
  grpc::Status status;
  while (status.ok() && absl::Now() < patience) {
    Context context;
    v1::GetJobResponse response;
    status = client_->jobs->GetJob(&context, request, &response);
  }
  EXPECT_EQ(ReasonOf(status), "JOB_NOT_FOUND");
}

TEST_F(ServerTest, ErrorsCarryOneErrorInfoAndTheFields) {
  Start(Options());
  v1::CreateJobRequest request = TinyJob(dir_.path(), 0);
  request.mutable_spec()->mutable_budget()->set_kv_budget(2);
  v1::CreateJobResponse response;
  const grpc::Status status = client_->Create(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(status), "BUDGET_OUT_OF_RANGE");
  EXPECT_THAT(status.error_message(), HasSubstr("kv_budget"));
  EXPECT_EQ(ReasonOf(client_->Cancel("jobs/nope")), "JOB_NOT_FOUND");
  v1::Lease lease;
  lease.set_job("jobs/nope");
  const grpc::Status lost = client_->Succeed(lease);
  EXPECT_EQ(lost.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(ReasonOf(lost), "LEASE_LOST");
}

TEST_F(ServerTest, ErrorsWithVeryMuchToSayStillArrive) {
  Start(Options());
  v1::CreateJobRequest request = TinyJob(dir_.path(), 0);
  std::string deep = "/nowhere/";
  for (int i = 0; i < 10; ++i) absl::StrAppend(&deep, std::string(200, 'x'), "/");
  for (int i = 0; i < 60; ++i)
    request.mutable_spec()->mutable_calibration()->add_corpora()->set_uri(absl::StrCat(deep, i));
  v1::CreateJobResponse response;
  const grpc::Status status = client_->Create(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  EXPECT_EQ(ReasonOf(status), "CORPUS_NOT_READABLE");
}

TEST_F(ServerTest, MessagesAboveTheLimitAreRefused) {
  Start(Options());
  v1::CreateJobRequest request = TinyJob(dir_.path(), 0);
  request.set_request_id(std::string(5 << 20, 'x'));
  v1::CreateJobResponse response;
  EXPECT_EQ(client_->Create(request, &response).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(ServerTest, AnIdleWatchGetsBookmarks) {
  ServerOptions options = Options();
  options.bookmark_interval = absl::Milliseconds(50);
  Start(options);
  const std::string job = CreateJob();
  Context context;
  const auto watch = client_->jobs->WatchJob(&context, WatchRequest(job, 1));
  v1::WatchJobResponse message;
  ASSERT_TRUE(watch->Read(&message));
  EXPECT_TRUE(message.has_snapshot());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(watch->Read(&message));
    EXPECT_EQ(message.bookmark().sequence(), 1);
  }
  context.TryCancel();
  while (watch->Read(&message)) continue;
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServerTest, WatchErrorsEndTheStream) {
  Start(Options());
  const std::string job = CreateJob();
  v1::WatchJobResponse message;
  Context ahead;
  auto watch = client_->jobs->WatchJob(&ahead, WatchRequest(job, 99));
  EXPECT_FALSE(watch->Read(&message));
  const grpc::Status status = watch->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(ReasonOf(status), "SEQUENCE_AHEAD");
}

class WatchLimitTest : public ServerTest {
 protected:
  // Of a second watch while a first one is open.
  grpc::Status WatchTwice() {
    const std::string job = CreateJob();
    Context first_context;
    const auto first = client_->jobs->WatchJob(&first_context, WatchRequest(job, 0));
    v1::WatchJobResponse message;
    EXPECT_TRUE(first->Read(&message));
    Context second_context;
    const auto second = client_->jobs->WatchJob(&second_context, WatchRequest(job, 0));
    EXPECT_FALSE(second->Read(&message));
    return second->Finish();
  }
};

TEST_F(WatchLimitTest, WatchesAboveTheLimitAreRefused) {
  ServerOptions options = Options();
  options.max_watches = 1;
  Start(options);
  EXPECT_EQ(ReasonOf(WatchTwice()), "TOO_MANY_WATCHES");
}

TEST_F(WatchLimitTest, OneTenantDoesNotGetEveryWatch) {
  ServerOptions options = Options();
  options.max_watches = 4;
  options.max_watches_per_tenant = 1;
  Start(options);
  const grpc::Status refused = WatchTwice();
  EXPECT_EQ(ReasonOf(refused), "TOO_MANY_WATCHES");
  EXPECT_THAT(refused.error_message(), testing::HasSubstr("--max-watches-per-tenant"));
}

TEST_F(ServerTest, AWorkerThatHangsUpWhileWaitingTakesNoJob) {
  Start(Options());
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
    v1::AcquireLeaseResponse response;
    const grpc::Status status =
        client_->workers->AcquireLease(&context, RpcClient::AcquireRequest(20), &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  const std::string job = CreateJob();
  const v1::AcquireLeaseResponse grant = client_->Acquire();
  EXPECT_EQ(grant.lease().job(), job);
}

TEST_F(ServerTest, HealthSpeaksForTheServerAndEachService) {
  Start(Options());
  EXPECT_EQ(AskHealth(*client_, ""), 1);
  EXPECT_EQ(AskHealth(*client_, "latentforge.v1.JobService"), 1);
  EXPECT_EQ(AskHealth(*client_, "latentforge.v1.WorkerService"), 1);
  EXPECT_EQ(AskHealth(*client_, "no.such.Service"), 0);
}

TEST_F(ServerTest, StoppingReportsNotServingFirstAndEndsEveryStream) {
  ServerOptions options = Options();
  options.drain_delay = absl::Milliseconds(500);
  options.drain_grace = absl::Seconds(20);
  Start(options);
  const std::string job = CreateJob();
  EXPECT_TRUE(client_->Acquire().has_lease());
  Context context;
  const auto watch = client_->jobs->WatchJob(&context, WatchRequest(job, 2));
  v1::WatchJobResponse message;
  ASSERT_TRUE(watch->Read(&message));
  std::thread waiting([&] {
    Context acquire_context;
    v1::AcquireLeaseResponse response;
    const grpc::Status status =
        client_->workers->AcquireLease(&acquire_context, RpcClient::AcquireRequest(20), &response);
    EXPECT_EQ(ReasonOf(status), "DRAINING") << status.error_message();
  });
  const absl::Duration start = RealClock().Monotonic();
  std::thread stopping([&] { server_->Stop(); });
  while (AskHealth(*client_, "") == 1) std::this_thread::yield();
  EXPECT_EQ(AskHealth(*client_, "latentforge.v1.JobService"), 2);
  EXPECT_FALSE(watch->Read(&message));
  EXPECT_EQ(ReasonOf(watch->Finish()), "DRAINING");
  waiting.join();
  stopping.join();
  // All streams ended by themselves, long before the grace was over.
  EXPECT_LT(RealClock().Monotonic() - start, absl::Seconds(10));
}

TEST_F(ServerTest, AWatcherThatNeverReadsHoldsNothingUp) {
  Start(Options());
  const std::string job = CreateJob();
  const v1::Lease lease = client_->Acquire().lease();
  Context stuck_context;
  const auto stuck = client_->jobs->WatchJob(&stuck_context, WatchRequest(job, 0));
  for (int batch = 0; batch < 10; ++batch) {
    Context context;
    v1::ReportEventsRequest report;
    *report.mutable_lease() = lease;
    for (int i = 1; i <= 100; ++i) {
      v1::AttemptEvent& event = *report.add_events();
      event.set_sequence(batch * 100 + i);
      event.mutable_log()->set_text(std::string(4000, 'x'));
    }
    v1::ReportEventsResponse response;
    ASSERT_TRUE(client_->workers->ReportEvents(&context, report, &response).ok());
    EXPECT_EQ(response.last_sequence(), (batch + 1) * 100);
  }
  ASSERT_TRUE(client_->Succeed(lease).ok());
  // Another watcher sees it all: 1 queued, 2 running, 1000 lines, the end.
  Context context;
  const auto watch = client_->jobs->WatchJob(&context, WatchRequest(job, 0));
  v1::WatchJobResponse message;
  ASSERT_TRUE(watch->Read(&message));
  int64_t sequence = 0;
  while (watch->Read(&message)) EXPECT_EQ(message.event().sequence(), ++sequence);
  EXPECT_EQ(sequence, 1003);
  const absl::Duration start = RealClock().Monotonic();
  server_->Stop();
  EXPECT_LT(RealClock().Monotonic() - start, absl::Seconds(10));
}

TEST_F(ServerTest, TakenAddressesAreErrors) {
  ServerOptions options = Options();
  options.listen.push_back(*ParseListenAddress("127.0.0.1:0"));
  Start(options);
  ASSERT_EQ(server_->addresses().size(), 2u);
  ServerOptions other = Options();
  other.database = dir_.path() / "other.db";
  EXPECT_EQ(Server::Start(other, RealClock()).status().code(), absl::StatusCode::kAlreadyExists);
  other.listen = {*ParseListenAddress(server_->addresses()[1])};
  const absl::Status taken = Server::Start(other, RealClock()).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(taken.message()), HasSubstr(server_->addresses()[1]));
  EXPECT_EQ(AskHealth(*client_, ""), 1) << "the first server is unharmed";
}

}  // namespace
}  // namespace latentforge::service
