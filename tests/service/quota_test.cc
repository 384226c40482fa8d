// How many jobs a tenant may have waiting, and how fast it may submit them.
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

class QuotaTest : public SchedulerFixture {
 protected:
  absl::Status Submit(const std::string& tenant, const std::string& request_id = "",
                      bool validate_only = false) {
    v1::CreateJobRequest request = CreateRequest(request_id);
    request.set_validate_only(validate_only);
    return As(tenant).Create(request).status();
  }

  absl::Status Retry(const std::string& name) {
    v1::RetryJobRequest request;
    request.set_name(name);
    return jobs_->Retry(request).status();
  }
};

TEST_F(QuotaTest, CreateBeyondTheQuotaIsRefused) {
  SetTenants(R"({"*": {"max_queued_jobs": 2}, "large": {"max_queued_jobs": 3}})");
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Submit("a").ok());
  const absl::Status refused = Submit("a");
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), kQuotaQueuedJobs);
  EXPECT_EQ(refused.message(),
            "tenant a has 2 queued and 0 paused jobs, expected at most 2 together");
  const auto payload = refused.GetPayload("type.googleapis.com/google.rpc.QuotaFailure");
  ASSERT_TRUE(payload.has_value());
  google::rpc::QuotaFailure failure;
  ASSERT_TRUE(failure.ParseFromString(std::string(*payload)));
  EXPECT_EQ(failure.violations(0).subject(), "tenants/a");
  EXPECT_EQ(observer_[kQuotaQueuedJobs], 1);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Submit("large").ok());
  EXPECT_FALSE(Submit("large").ok());
  EXPECT_TRUE(Submit("b").ok());
}

TEST_F(QuotaTest, ValidateOnlyLooksAtTheQuotaToo) {
  SetTenants(R"({"*": {"max_queued_jobs": 1}})");
  EXPECT_TRUE(Submit("a", "", true).ok());
  EXPECT_TRUE(Submit("a").ok());
  EXPECT_EQ(ReasonOf(Submit("a", "", true)), kQuotaQueuedJobs);
}

TEST_F(QuotaTest, ARepeatedRequestIsAnsweredWhateverTheLimits) {
  SetTenants(R"({"*": {"max_queued_jobs": 1, "max_submits_per_minute": 1}})");
  EXPECT_TRUE(Submit("a", "r").ok());
  EXPECT_FALSE(Submit("a", "s").ok());
  EXPECT_TRUE(Submit("a", "r").ok());
  EXPECT_EQ(observer_["deduplicated"], 1);
}

TEST_F(QuotaTest, APausedJobKeepsItsPlaceAndComesBackToIt) {
  SetTenants(R"({"*": {"max_queued_jobs": 1}})");
  const std::string job = CreateJob();
  Pause(job);
  EXPECT_EQ(ReasonOf(Submit(kDefaultTenant)), kQuotaQueuedJobs);
  Resume(job);
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_QUEUED);
}

TEST_F(QuotaTest, ARetryNeedsAPlaceAndALostAttemptDoesNot) {
  SetTenants(R"({"*": {"max_queued_jobs": 1}})");
  const std::string running = CreateJob();
  ASSERT_TRUE(Acquire().has_lease());
  const std::string ended = CreateJob();
  Cancel(ended);
  const std::string waiting = CreateJob();
  EXPECT_EQ(ReasonOf(Retry(ended)), kQuotaQueuedJobs);
  EXPECT_EQ(StateOf(ended), v1::JOB_STATE_CANCELLED);
  clock_.Advance(absl::Seconds(30));
  Tick();  // the lease is over
  EXPECT_EQ(StateOf(running), v1::JOB_STATE_QUEUED);
  Cancel(waiting);
  Cancel(running);
  EXPECT_TRUE(Retry(ended).ok());
}

TEST_F(QuotaTest, KindsOfJobsAreLimitedWithoutAFileToo) {
  const auto submit = [this](int zone, bool validate_only = false) {
    v1::CreateJobRequest request = CreateRequest();
    request.set_validate_only(validate_only);
    (*request.mutable_spec()->mutable_worker_selector())["zone"] = absl::StrCat("z", zone);
    return As("a").Create(request).status();
  };
  for (int zone = 0; zone < 256; ++zone) ASSERT_TRUE(submit(zone).ok());
  const absl::Status refused = submit(256);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), kQuotaQueuedKinds);
  EXPECT_EQ(refused.message(),
            "tenant a has jobs waiting that need 256 different things of a worker (device, memory, "
            "labels), and this one needs another, expected at most 256 together");
  EXPECT_EQ(observer_[kQuotaQueuedKinds], 1);
  EXPECT_EQ(ReasonOf(submit(256, true)), kQuotaQueuedKinds);
  EXPECT_TRUE(submit(255).ok());
  EXPECT_TRUE(submit(255, true).ok());
  EXPECT_TRUE(Submit("b").ok());
  SetTenants(R"({"a": {"max_queued_kinds": 0}})");
  EXPECT_TRUE(submit(256).ok());
}

TEST_F(QuotaTest, ParallelSubmitsDoNotPassIt) {
  SetTenants(R"({"*": {"max_queued_jobs": 5}})");
  std::vector<absl::Status> answers(16);
  std::vector<std::thread> threads;
  std::atomic<int> id = 0;
  for (absl::Status& answer : answers)
    threads.emplace_back([&] {
      JobRecord record;
      record.id = absl::StrCat("p", ++id);
      record.tenant = "a";
      answer = engine_->Create(record, "", "").status();
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::count_if(answers.begin(), answers.end(),
                          [](const absl::Status& answer) { return answer.ok(); }),
            5);
  EXPECT_EQ(store_->Use("a")->queued, 5);
}

TEST_F(QuotaTest, SubmitsAreLimitedByTheMinute) {
  SetTenants(R"({"a": {"max_submits_per_minute": 2}})");
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Submit("a").ok());
  EXPECT_EQ(ReasonOf(Submit("a")), kRateLimited);
  EXPECT_EQ(observer_[kRateLimited], 1);
  EXPECT_TRUE(Submit("b").ok());
  clock_.StepWall(-absl::Hours(1));
  clock_.Advance(absl::Seconds(30));
  EXPECT_TRUE(Submit("a").ok());
}

TEST_F(QuotaTest, ALimitHoldsFromTheMomentThatItIsRead) {
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Submit("a").ok());
  SetTenants(R"({"a": {"max_queued_jobs": 2}})");
  EXPECT_THAT(std::string(Submit("a").message()), HasSubstr("has 3 queued"));
  SetTenants("{}");
  EXPECT_TRUE(Submit("a").ok());
}

}  // namespace
}  // namespace latentforge::service
