// Share and limits of tenants through the scheduler, from its jobs to its leases.
#include <random>
#include <thread>

#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

class FairnessTest : public SchedulerFixture {
 protected:
  void Submit(const std::string& tenant, int jobs) {
    for (int i = 0; i < jobs; ++i) {
      const absl::Status submitted = As(tenant).Create(CreateRequest()).status();
      ASSERT_TRUE(submitted.ok()) << submitted;
    }
  }

  // The tenant whose job a worker gets; empty when there is none.
  std::string Claim(const std::string& worker = "w") {
    const v1::AcquireLeaseResponse response = Acquire(worker);
    if (!response.has_lease()) return "";
    leases_.push_back(response.lease());
    return store_->Get(response.lease().job().substr(5))->tenant;
  }

  std::vector<v1::Lease> leases_;
};

TEST_F(FairnessTest, T26OneTenantSubmits5000AndAnothersSingleJobStartsInItsTurn) {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 50; ++caller)
    callers.emplace_back([this, caller] {
      for (int i = 0; i < 100; ++i) {
        JobRecord record;
        record.id = absl::StrCat("flood", caller, "-", i);
        record.job.set_name(absl::StrCat("jobs/", record.id));
        record.tenant = "flood";
        record.estimate.set_seconds(60);
        ASSERT_TRUE(engine_->Create(record, "", "").ok());
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Claim(), "flood");
  Submit("calm", 1);
  EXPECT_EQ(Claim(), "calm");
  EXPECT_EQ(Claim(), "flood");
}

TEST_F(FairnessTest, T26QuotaReturnsAfterKills) {
  SetTenants(R"({"a": {"max_running_jobs": 3}, "b": {"max_running_gpus": 2}})");
  Submit("a", 6);
  v1::CreateJobRequest cuda = CreateRequest();
  cuda.mutable_spec()->set_device("cuda");
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(As("b").Create(cuda).ok());
  std::mt19937 random(7);
  for (int round = 0; round < 1000; ++round) {
    Answer answer;
    scheduler_->Acquire(kWorker, AcquireRequest("w", absl::ZeroDuration(), "cuda:0"),
                        [&](auto got) { answer = std::move(got); });
    Tick();
    if (answer.has_value() && answer->ok() && (*answer)->has_lease())
      leases_.push_back((*answer)->lease());
    ASSERT_LE(store_->Use("a")->running, 3);
    ASSERT_LE(store_->Use("b")->gpus, 2);
    // A worker dies, a user cancels, a worker gives back, or nothing happens.
    switch (random() % 4) {
      case 0:
        clock_.Advance(absl::Seconds(31));
        break;
      case 1:
        if (!leases_.empty()) {
          v1::CompleteAttemptRequest released;
          released.mutable_released();
          Complete(leases_[random() % leases_.size()], released).IgnoreError();  // often over
        }
        break;
      case 2: {
        const std::string tenant = random() % 2 == 0 ? "a" : "b";
        v1::ListJobsRequest running;
        running.mutable_filter()->add_states(v1::JOB_STATE_RUNNING);
        const auto listed = As(tenant).List(running);
        ASSERT_TRUE(listed.ok());
        if (listed->jobs().empty()) break;
        v1::CancelJobRequest cancel;
        cancel.set_name(listed->jobs(0).name());
        ASSERT_TRUE(As(tenant).Cancel(cancel).ok());
        ASSERT_TRUE(As(tenant).Create(tenant == "a" ? CreateRequest() : cuda).ok());
        break;
      }
      default:
        break;
    }
  }
  clock_.Advance(absl::Hours(1));
  Tick();  // every worker is gone
  EXPECT_EQ(store_->Use("a")->running, 0);
  EXPECT_EQ(store_->Use("b")->gpus, 0);
}

TEST_F(FairnessTest, ATenantAtItsLimitLetsOthersGoFirst) {
  SetTenants(R"({"a": {"max_running_jobs": 1, "weight": 100}})");
  Submit("a", 3);
  Submit("b", 2);
  EXPECT_EQ(Claim(), "a");
  EXPECT_EQ(Claim(), "b");
  EXPECT_EQ(Claim(), "b");
  EXPECT_EQ(Claim(), "");
  ASSERT_TRUE(Complete(leases_[0], Succeeded()).ok());
  EXPECT_EQ(Claim(), "a");
}

TEST_F(FairnessTest, EveryAttemptCosts) {
  Submit("a", 2);
  EXPECT_EQ(Claim(), "a");
  v1::CompleteAttemptRequest released;
  released.mutable_released();
  ASSERT_TRUE(Complete(leases_[0], released).ok());
  EXPECT_EQ(Claim(), "a");
  Submit("b", 1);
  ASSERT_TRUE(Complete(leases_[1], released).ok());
  EXPECT_EQ(Claim(), "b");
}

}  // namespace
}  // namespace latentforge::service
