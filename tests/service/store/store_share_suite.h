// Whose turn it is, what tenants may use and which workers fit: a part of the suite of every
// Store.
#pragma once

#include <string>
#include <thread>
#include <vector>

#include "service/needs.h"
#include "tests/service/store/store_fixture.h"

namespace latentforge::service {

inline std::shared_ptr<const TenantTable> Tenants(const std::string& json) {
  auto parsed = TenantTable::Parse(json);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return std::make_shared<const TenantTable>(*std::move(parsed));
}

// `seconds` is what it is estimated to take.
inline NewJob JobOfTenant(NewJob job, const std::string& tenant, double seconds = 60) {
  job.record.tenant = tenant;
  job.record.job.set_tenant(tenant);
  job.record.estimate.set_seconds(seconds);
  return job;
}

TEST_P(StoreTestSuite, TenantsTakeTurnsHoweverManyJobsOneHas) {
  for (int i = 0; i < 5; ++i) Create(JobOfTenant(Job(absl::StrCat("a", i)), "a"));
  for (int i = 0; i < 2; ++i) Create(JobOfTenant(Job(absl::StrCat("b", i)), "b"));
  std::vector<std::string> order;
  for (int i = 0; i < 8; ++i) order.push_back(ClaimId(ByCpu(kStart)));
  EXPECT_THAT(order, testing::ElementsAre("a0", "b0", "a1", "b1", "a2", "a3", "a4", ""));
}

TEST_P(StoreTestSuite, SharesFollowWeightsAndCosts) {
  for (int i = 0; i < 30; ++i) {
    Create(JobOfTenant(Job(absl::StrCat("a", i)), "a", 60));
    Create(JobOfTenant(Job(absl::StrCat("b", i)), "b", 60));
    Create(JobOfTenant(Job(absl::StrCat("c", i)), "c", 180));
  }
  ClaimQuery query = ByCpu(kStart);
  query.tenants = Tenants(R"({"a": {"weight": 3}})");
  std::map<char, int> claimed;
  for (int i = 0; i < 26; ++i) ++claimed[ClaimId(query)[0]];
  // 3 : 1 for jobs of one size; a third as many of three times that.
  EXPECT_EQ(claimed['a'], 18);
  EXPECT_EQ(claimed['b'], 6);
  EXPECT_EQ(claimed['c'], 2);
}

TEST_P(StoreTestSuite, SharesOutliveTheServer) {
  Create(JobOfTenant(Job("a0"), "a", 600));
  Create(JobOfTenant(Job("a1"), "a", 600));
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "a0");
  Create(JobOfTenant(Job("b0"), "b", 60));
  Create(JobOfTenant(Job("b1"), "b", 60));
  store_ = &harness_->Reopen();
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "b0");
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "b1");
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "a1");
}

TEST_P(StoreTestSuite, WhoWasAwaySavedUpNothing) {
  Create(JobOfTenant(Job("b0"), "b"));
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "b0");
  for (int i = 0; i < 20; ++i) Create(JobOfTenant(Job(absl::StrCat("a", i)), "a"));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(ClaimId(ByCpu(kStart)), absl::StrCat("a", i));
  for (int i = 1; i < 5; ++i) Create(JobOfTenant(Job(absl::StrCat("b", i)), "b"));
  std::string order;
  for (int i = 0; i < 6; ++i) order += ClaimId(ByCpu(kStart))[0];
  // b comes at once, and then one in two: not four in a row.
  EXPECT_EQ(order, "bababa");
}

TEST_P(StoreTestSuite, ARefusedClaimCostsNothing) {
  Create(JobOfTenant(Job("a"), "a", 3600));
  Create(JobOfTenant(Job("b"), "b", 3600));
  const auto refused =
      store_->Claim(ByCpu(kStart), [](const JobRecord&) -> absl::StatusOr<JobUpdate> {
        return absl::FailedPreconditionError("no");
      });
  EXPECT_FALSE(refused.ok());
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "a");
}

TEST_P(StoreTestSuite, AJobThatFailsWhenItIsItsTurnCostsNothing) {
  Create(JobOfTenant(Job("a0"), "a", 3600));
  Create(JobOfTenant(Job("a1"), "a", 3600));
  Create(JobOfTenant(Job("b"), "b", 3600));
  const auto failed = store_->Claim(ByCpu(kStart), [](const JobRecord& candidate) {
    return absl::StatusOr<JobUpdate>(To(v1::JOB_STATE_FAILED, candidate));
  });
  ASSERT_TRUE(failed.ok()) << failed.status();
  EXPECT_EQ((**failed).id, "a0");
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "a1");
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "b");
}

TEST_P(StoreTestSuite, ClaimsStopAtTheTenantsLimits) {
  ClaimQuery query = ByCuda(kStart);
  query.tenants = Tenants(R"({"a": {"max_running_jobs": 2}, "b": {"max_running_gpus": 1}})");
  for (int i = 0; i < 4; ++i) {
    NewJob a = JobOfTenant(Job(absl::StrCat("a", i)), "a");
    a.record.needs = "cpu";
    Create(a);
    NewJob b = JobOfTenant(Job(absl::StrCat("b", i)), "b");
    b.record.needs = i < 3 ? "cuda" : "cpu";
    Create(b);
  }
  const auto claim = [&] {
    const auto claimed = store_->Claim(query, [&](const JobRecord& candidate) {
      JobUpdate update = To(v1::JOB_STATE_RUNNING, candidate);
      update.record.gpus = GpusTaken(query.worker, ParseNeedsKey(candidate.needs));
      return absl::StatusOr<JobUpdate>(update);
    });
    EXPECT_TRUE(claimed.ok()) << claimed.status();
    return claimed.ok() && claimed->has_value() ? (*claimed)->id : "";
  };
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(claim());
  EXPECT_THAT(ids, testing::UnorderedElementsAre("a0", "a1", "b0", "b3", ""));
  EXPECT_EQ(store_->Use("a")->running, 2);
  EXPECT_EQ(store_->Use("b")->gpus, 1);
  // What ends gives its place back, whatever state it was in.
  Commit(To(v1::JOB_STATE_CANCELLING, *store_->Get("a0")));
  EXPECT_EQ(claim(), "");
  Commit(To(v1::JOB_STATE_CANCELLED, *store_->Get("a0")));
  EXPECT_EQ(claim(), "a2");
  Commit(To(v1::JOB_STATE_PAUSING, *store_->Get("b0")));
  EXPECT_EQ(claim(), "");
  Commit(To(v1::JOB_STATE_QUEUED, *store_->Get("b0")));
  EXPECT_EQ(claim(), "b0");
}

TEST_P(StoreTestSuite, JobsGoToWorkersThatHaveWhatTheyNeed) {
  const auto create = [&](const std::string& id, const std::string& needs) {
    NewJob job = Job(id);
    job.record.needs = needs;
    Create(job);
  };
  create("large", "4096");
  create("zone", "1024 zone=a");
  create("second", "cuda:1");
  create("any", "");
  create("small", "1024");
  ClaimQuery query = ByCpu(kStart);
  query.worker.set_memory_bytes(2048);
  EXPECT_EQ(ClaimId(query), "any");
  EXPECT_EQ(ClaimId(query), "small");
  EXPECT_EQ(ClaimId(query), "");
  (*query.worker.mutable_labels())["zone"] = "a";
  EXPECT_EQ(ClaimId(query), "zone");
  EXPECT_EQ(ClaimId(ByCuda(kStart)), "large");  // it does not say how much it has
  EXPECT_EQ(ClaimId(ByCuda(kStart)), "");
  EXPECT_EQ(ClaimId(ByWorker(kStart, {"cpu", "cuda:0", "cuda:1"})), "second");
}

TEST_P(StoreTestSuite, WithinATenantTheRankDecidesWhateverJobsNeed) {
  for (int i = 0; i < 6; ++i) {
    NewJob job = Job(absl::StrCat("j", i));
    job.record.needs = absl::StrCat((5 - i) % 3 * 1024 + 1024);
    job.record.rank_time = kStart + absl::Seconds(i);
    Create(job);
  }
  for (int i = 0; i < 6; ++i) EXPECT_EQ(ClaimId(ByCpu(kStart)), absl::StrCat("j", i));
}

TEST_P(StoreTestSuite, NoMoreJobsWaitThanTheTenantMayHave) {
  const auto limited = [](const std::string& id, const std::string& tenant) {
    NewJob job = JobOfTenant(Job(id), tenant);
    job.limits.jobs = 2;
    return job;
  };
  const JobRecord first = Create(limited("a0", "a"));
  Commit(To(v1::JOB_STATE_PAUSED, Create(limited("a1", "a"))));
  const absl::Status refused = store_->Create(limited("a2", "a")).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), kQuotaQueuedJobs);
  EXPECT_EQ(ReasonOf(store_->Get("a2").status()), kJobNotFound);
  Create(limited("b0", "b"));
  JobUpdate again = To(v1::JOB_STATE_QUEUED, Commit(To(v1::JOB_STATE_FAILED, first)));
  Create(limited("a2", "a"));
  again.limits.jobs = 2;
  EXPECT_EQ(ReasonOf(store_->Commit(again).status()), kQuotaQueuedJobs);
  EXPECT_EQ(store_->Get("a0")->job.status().state(), v1::JOB_STATE_FAILED);
  again.limits.jobs = 3;
  Commit(again);
}

TEST_P(StoreTestSuite, NoMoreKindsWaitThanTheTenantMayHave) {
  const auto limited = [](const std::string& id, const std::string& tenant,
                          const std::string& needs) {
    NewJob job = JobOfTenant(Job(id), tenant);
    job.record.needs = needs;
    job.limits.kinds = 2;
    return job;
  };
  const JobRecord first = Create(limited("a0", "a", "zone=a"));
  Commit(To(v1::JOB_STATE_PAUSED, Create(limited("a1", "a", ""))));
  EXPECT_THAT(*store_->WaitingNeeds("a"), testing::ElementsAre("", "zone=a"));
  // As many as there may be of what waits already, and of another tenant's.
  Create(limited("a2", "a", ""));
  Create(limited("a3", "a", "zone=a"));
  Create(limited("b0", "b", "zone=b"));
  const absl::Status refused = store_->Create(limited("a4", "a", "zone=b")).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), kQuotaQueuedKinds);
  EXPECT_EQ(ReasonOf(store_->Get("a4").status()), kJobNotFound);
  // Kinds that run do not count, but for who wants to come back from an end.
  JobUpdate again = To(v1::JOB_STATE_QUEUED, Commit(To(v1::JOB_STATE_FAILED, first)));
  Commit(To(v1::JOB_STATE_RUNNING, *store_->Get("a3")));
  EXPECT_THAT(*store_->WaitingNeeds("a"), testing::ElementsAre(""));
  Create(limited("a4", "a", "zone=b"));
  again.limits.kinds = 2;
  EXPECT_EQ(ReasonOf(store_->Commit(again).status()), kQuotaQueuedKinds);
  EXPECT_EQ(store_->Get("a0")->job.status().state(), v1::JOB_STATE_FAILED);
  again.limits.kinds = 3;
  Commit(again);
  EXPECT_THAT(*store_->WaitingNeeds("a"), testing::ElementsAre("", "zone=a", "zone=b"));
  EXPECT_THAT(*store_->WaitingNeeds("nobody"), testing::IsEmpty());
}

TEST_P(StoreTestSuite, ARequestIdThatIsRepeatedIsNamedBeforeAnyLimit) {
  NewJob job = Job("a0", "", "r");
  job.limits = {.jobs = 1, .kinds = 1};
  Create(job);
  job.record.id = "a1";
  job.record.needs = "zone=a";
  EXPECT_EQ(ReasonOf(store_->Create(job).status()), kRequestIdReused);
  job.request_id = "s";
  EXPECT_EQ(ReasonOf(store_->Create(job).status()), kQuotaQueuedJobs);
}

TEST_P(StoreTestSuite, CountsWhatATenantUses) {
  Create(JobOfTenant(Job("other"), "b"));
  Create(JobOfTenant(Job("q"), "a"));
  Commit(To(v1::JOB_STATE_PAUSED, Create(JobOfTenant(Job("p"), "a"))));
  Commit(To(v1::JOB_STATE_FAILED, Create(JobOfTenant(Job("f"), "a"))));
  for (const v1::JobState state :
       {v1::JOB_STATE_RUNNING, v1::JOB_STATE_PAUSING, v1::JOB_STATE_CANCELLING}) {
    JobUpdate update = To(state, Create(JobOfTenant(Job(absl::StrCat("r", int{state})), "a")));
    update.record.gpus = state == v1::JOB_STATE_RUNNING ? 1 : 0;
    Commit(update);
  }
  const auto use = store_->Use("a");
  ASSERT_TRUE(use.ok()) << use.status();
  EXPECT_EQ(use->queued, 1);
  EXPECT_EQ(use->paused, 1);
  EXPECT_EQ(use->waiting(), 2);
  EXPECT_EQ(use->running, 3);
  EXPECT_EQ(use->gpus, 1);
  EXPECT_EQ(store_->Use("nobody")->running, 0);
}

}  // namespace latentforge::service
