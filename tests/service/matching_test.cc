// Which worker gets which job, and why one waits.
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

class MatchingTest : public SchedulerFixture {
 protected:
  static v1::AcquireLeaseRequest Worker(const std::string& name, int64_t memory,
                                        const std::map<std::string, std::string>& labels = {}) {
    v1::AcquireLeaseRequest request = AcquireRequest(name);
    request.mutable_worker()->set_memory_bytes(memory);
    request.mutable_worker()->mutable_labels()->insert(labels.begin(), labels.end());
    return request;
  }

  // The jobs that these workers, which wait at the same time, get.
  std::vector<std::string> Ask(const std::vector<v1::AcquireLeaseRequest>& workers) {
    std::vector<std::string> jobs(workers.size());
    for (size_t i = 0; i < workers.size(); ++i)
      scheduler_->Acquire(kWorker, workers[i], [&jobs, i](auto got) {
        ASSERT_TRUE(got.ok()) << got.status();
        jobs[i] = got->lease().job();
      });
    Tick();
    return jobs;
  }

  std::string CreateFor(const std::map<std::string, std::string>& selector) {
    v1::CreateJobRequest request = CreateRequest();
    request.mutable_spec()->mutable_worker_selector()->insert(selector.begin(), selector.end());
    return CreateJob(request);
  }
};

TEST_F(MatchingTest, AJobGoesToAWorkerWithItsLabelsAndItsMemory) {
  const std::string job = CreateFor({{"zone", "a"}});  // the fixture's jobs need 7 bytes
  EXPECT_THAT(Ask({Worker("small", 6, {{"zone", "a"}}), Worker("elsewhere", 8, {{"zone", "b"}}),
                   Worker("right", 8, {{"zone", "a"}, {"disk", "nvme"}})}),
              testing::ElementsAre("", "", job));
}

TEST_F(MatchingTest, WorkersThatCanTakeNothingDoNotHoldUpThoseBehindThem) {
  const std::string job = CreateFor({{"zone", "a"}});
  std::vector<v1::AcquireLeaseRequest> workers;
  for (int i = 0; i < 20; ++i) workers.push_back(Worker(absl::StrCat("w", i), 8));
  workers.push_back(Worker("right", 8, {{"zone", "a"}}));
  EXPECT_EQ(Ask(workers).back(), job);
  EXPECT_LE(faulty_.TakeCalls("Claim"), 2);  // equal workers are asked for once
}

TEST_F(MatchingTest, JobsThatNobodyCanTakeDoNotHoldUpThoseBehindThem) {
  for (int i = 0; i < 50; ++i) CreateFor({{"zone", "nowhere"}});
  const std::string job = CreateJob();
  EXPECT_THAT(Ask({Worker("w", 8)}), testing::ElementsAre(job));
}

TEST_F(MatchingTest, AJobSaysWhyItWaits) {
  const std::string job = CreateFor({{"zone", "a"}});
  EXPECT_EQ(GetJob(job).status().queue_reason(), "no worker is connected");
  Ask({Worker("w", 8)});
  EXPECT_EQ(GetJob(job).status().queue_reason(),
            "needs a worker with zone=a, which none of 1 worker is");
  const auto listed = jobs_->List({});
  ASSERT_TRUE(listed.ok());
  EXPECT_NE(listed->jobs(0).status().queue_reason(), "");
  // It is not kept.
  EXPECT_EQ(store_->Get("j1")->job.status().queue_reason(), "");
  EXPECT_THAT(Ask({Worker("right", 8, {{"zone", "a"}})}), testing::ElementsAre(job));
  EXPECT_EQ(GetJob(job).status().queue_reason(), "");
}

TEST_F(MatchingTest, AWorkerThatIsBusyIsNoReason) {
  CreateJob();
  ASSERT_TRUE(Acquire("w").has_lease());
  EXPECT_EQ(GetJob(CreateJob()).status().queue_reason(), "");
}

TEST_F(MatchingTest, AJobThatItsOwnTenantsLimitHoldsBackSaysSo) {
  SetTenants(R"({"*": {"max_running_jobs": 1}})");
  const std::string first = CreateJob();
  const v1::AcquireLeaseResponse got = Acquire("w");
  ASSERT_TRUE(got.has_lease());
  const std::string second = CreateJob(), third = CreateJob();
  EXPECT_EQ(GetJob(first).status().queue_reason(), "");
  const std::string reason = absl::StrCat("tenant ", kCaller.tenant,
                                          " has 1 job running, and its max_running_jobs in the "
                                          "tenants file is 1");
  EXPECT_EQ(GetJob(second).status().queue_reason(), reason);
  faulty_.TakeCalls("Use");
  const auto listed = jobs_->List({});
  ASSERT_TRUE(listed.ok());
  EXPECT_EQ(listed->jobs(0).status().queue_reason(), reason);
  EXPECT_EQ(listed->jobs(1).status().queue_reason(), reason);
  EXPECT_EQ(faulty_.TakeCalls("Use"), 1) << "once for a page";
  ASSERT_TRUE(Complete(got.lease(), Succeeded()).ok());
  EXPECT_EQ(GetJob(third).status().queue_reason(), "");
}

}  // namespace
}  // namespace latentforge::service
