// How long jobs wait, run and stay, and who may have what: a part of the suite of every Store.
#pragma once

#include <string>
#include <thread>
#include <vector>

#include "tests/service/store/store_fixture.h"

namespace latentforge::service {

TEST_P(StoreTestSuite, OneActiveJobPerOutput) {
  JobRecord record = Create(Job("a", "/out"));
  const absl::Status taken = store_->Create(Job("b", "/out")).status();
  EXPECT_TRUE(absl::IsAlreadyExists(taken)) << taken;
  EXPECT_EQ(ReasonOf(taken), kOutputInUse);
  EXPECT_EQ(taken.message(),
            "spec.output.uri is /out, which jobs/a writes (queued), expected another folder");
  Commit(To(v1::JOB_STATE_CANCELLED, record));
  Create(Job("b", "/out"));
}

TEST_P(StoreTestSuite, AJobComesBackOnlyToAFreeOutput) {
  const JobRecord ended = Commit(To(v1::JOB_STATE_FAILED, Create(Job("a", "/out"))));
  const JobRecord other = Create(Job("b", "/out"));
  const absl::Status taken = store_->Commit(To(v1::JOB_STATE_QUEUED, ended)).status();
  EXPECT_TRUE(absl::IsAlreadyExists(taken)) << taken;
  EXPECT_EQ(ReasonOf(taken), kOutputInUse);
  EXPECT_EQ(store_->Get("a")->version, ended.version);
  Commit(To(v1::JOB_STATE_CANCELLED, other));
  Commit(To(v1::JOB_STATE_QUEUED, ended));
}

TEST_P(StoreTestSuite, ClaimsTheFirstByRankThatMayRun) {
  NewJob later = Job("later");
  later.record.claimable_time = kStart + absl::Seconds(10);
  NewJob cuda = Job("cuda");
  cuda.record.needs = "cuda";
  NewJob urgent = Job("urgent");
  urgent.record.rank_time = kStart - absl::Hours(1);
  NewJob idle = Job("idle");
  idle.record.rank_time = kStart + absl::Hours(1);
  for (const NewJob* job : {&idle, &later, &cuda}) Create(*job);
  Create(Job("plain"));
  Create(urgent);
  Commit(To(v1::JOB_STATE_PAUSED, Create(Job("paused"))));
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "urgent");
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "plain");
  EXPECT_EQ(ClaimId(ByCuda(kStart)), "cuda");
  EXPECT_EQ(ClaimId(ByCpu(kStart + absl::Seconds(10))), "later");
  EXPECT_EQ(ClaimId(ByCpu(kStart)), "idle");
  EXPECT_EQ(ClaimId(ByCuda(kStart)), "");
}

TEST_P(StoreTestSuite, AClaimWritesWhatIsDecidedOrNothing) {
  const JobRecord record = Create(Job("a"));
  const auto refused =
      store_->Claim(ByCuda(kStart), [](const JobRecord&) -> absl::StatusOr<JobUpdate> {
        return absl::FailedPreconditionError("not this one");
      });
  EXPECT_EQ(refused.status().message(), "not this one");
  EXPECT_EQ(store_->Get("a")->version, record.version);
  const auto claimed = store_->Claim(ByCuda(kStart), [](const JobRecord& candidate) {
    JobUpdate update = To(v1::JOB_STATE_RUNNING, candidate);
    update.attempt = {.number = 1};
    return absl::StatusOr<JobUpdate>(update);
  });
  ASSERT_TRUE(claimed.ok() && claimed->has_value()) << claimed.status();
  EXPECT_EQ((*claimed)->version, record.version + 1);
  EXPECT_EQ(store_->Get("a")->job.status().state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(store_->Events("a", 0, 10)->size(), 2u);
  EXPECT_EQ(store_->Attempts("a", 0, 10)->size(), 1u);
}

TEST_P(StoreTestSuite, ConcurrentClaimsGetDifferentJobs) {
  constexpr int kJobs = 8;
  for (int i = 0; i < kJobs; ++i) Create(Job(absl::StrCat("j", i)));
  std::vector<std::string> claimed(kJobs + 1);
  std::vector<std::thread> threads;
  for (std::string& id : claimed) threads.emplace_back([&] { id = ClaimId(ByCuda(kStart)); });
  for (std::thread& thread : threads) thread.join();
  std::sort(claimed.begin(), claimed.end());
  EXPECT_THAT(claimed, testing::ElementsAre("", "j0", "j1", "j2", "j3", "j4", "j5", "j6", "j7"));
}

TEST_P(StoreTestSuite, FindsLeasesAndDeadlinesThatEnd) {
  NewJob job = Job("a");
  *job.record.job.mutable_deadline_time() = ToProto(kStart + absl::Seconds(20));
  JobUpdate update = To(v1::JOB_STATE_RUNNING, Create(job));
  EXPECT_TRUE(store_->LeasesEndingBy(absl::InfiniteFuture())->empty());  // still queued
  update.record.lease_expire_time = kStart + absl::Seconds(10);
  const JobRecord running = Commit(update);
  EXPECT_TRUE(store_->LeasesEndingBy(kStart + absl::Seconds(9))->empty());
  EXPECT_EQ(store_->LeasesEndingBy(kStart + absl::Seconds(10))->size(), 1u);
  EXPECT_EQ(store_->LeasesEndingBy(absl::InfiniteFuture())->size(), 1u);
  EXPECT_TRUE(store_->DeadlinesBy(kStart + absl::Seconds(19))->empty());
  EXPECT_EQ(store_->DeadlinesBy(kStart + absl::Seconds(20))->size(), 1u);
  Commit(To(v1::JOB_STATE_FAILED, running));
  EXPECT_TRUE(store_->LeasesEndingBy(absl::InfiniteFuture())->empty());
  EXPECT_TRUE(store_->DeadlinesBy(kStart + absl::Seconds(20))->empty());
}

TEST_P(StoreTestSuite, FindsTheDeadlinesOfQueueAndAttempt) {
  NewJob job = Job("a");
  *job.record.job.mutable_queue_deadline_time() = ToProto(kStart + absl::Seconds(10));
  job.record.job.mutable_spec()->mutable_run_deadline()->set_seconds(5);
  JobUpdate update = To(v1::JOB_STATE_RUNNING, Create(job));
  const auto due = [&](int seconds) {
    return store_->DeadlinesBy(kStart + absl::Seconds(seconds))->size();
  };
  EXPECT_EQ(due(9), 0u);
  EXPECT_EQ(due(10), 1u);
  EXPECT_EQ(store_->Get("a")->job.queue_deadline_time().seconds(),
            absl::ToUnixSeconds(kStart) + 10);
  update.record.job.clear_queue_deadline_time();
  update.record.attempt_start_time = kStart + absl::Seconds(20);
  const JobRecord running = Commit(update);
  EXPECT_FALSE(store_->Get("a")->job.has_queue_deadline_time());
  EXPECT_EQ(due(24), 0u);
  EXPECT_EQ(due(25), 1u);
  Commit(To(v1::JOB_STATE_QUEUED, running));
  EXPECT_EQ(due(1000), 0u);
}

TEST_P(StoreTestSuite, APausingJobHoldsItsLeaseAndAPausedOneItsOutput) {
  NewJob job = Job("a", "/out");
  *job.record.job.mutable_deadline_time() = ToProto(kStart + absl::Seconds(20));
  const JobRecord pausing = Commit(To(v1::JOB_STATE_PAUSING, Create(job)));
  EXPECT_EQ(store_->LeasesEndingBy(absl::InfiniteFuture())->size(), 1u);
  Commit(To(v1::JOB_STATE_PAUSED, pausing));
  EXPECT_TRUE(store_->LeasesEndingBy(absl::InfiniteFuture())->empty());
  EXPECT_EQ(store_->DeadlinesBy(kStart + absl::Seconds(20))->size(), 1u);
  EXPECT_EQ(ClaimId(ByCuda(kStart)), "");
  EXPECT_EQ(ReasonOf(store_->Create(Job("b", "/out")).status()), kOutputInUse);
}

TEST_P(StoreTestSuite, HasAClock) {
  const auto first = store_->Now();
  ASSERT_TRUE(first.ok()) << first.status();
  // The test's PostgreSQL is on this machine.
  EXPECT_LT(absl::AbsDuration(*first - RealClock().Now()), absl::Minutes(1));
  EXPECT_GE(*store_->Now(), *first);
}

TEST_P(StoreTestSuite, DeleteTakesEverythingAlong) {
  NewJob job = Job("a", "/out", "r1");
  (*job.record.job.mutable_labels())["k"] = "v";
  const JobRecord record = Create(job);
  EXPECT_EQ(ReasonOf(store_->Delete({"a", record.version + 1, kStart})), kConcurrentTransition);
  EXPECT_FALSE(store_->FindRequest(kDefaultTenant, "r1")->value().deleted);
  ASSERT_TRUE(store_->Delete({"a", record.version, kStart}).ok());
  EXPECT_EQ(ReasonOf(store_->Get("a").status()), kJobNotFound);
  const JobRecord again = Create(Job("a", "/out", "r2"));
  EXPECT_GT(again.ordinal, record.ordinal);  // page tokens never meet an old ordinal
  EXPECT_EQ(store_->Events("a", 0, 10)->size(), 1u);
}

TEST_P(StoreTestSuite, ATombstoneHoldsTheRequestIdUntilItIsPurged) {
  for (int i = 0; i < 3; ++i) {
    const std::string id = absl::StrCat("j", i);
    const JobRecord record = Create(Job(id, "", "r" + id));
    ASSERT_TRUE(store_->Delete({id, record.version, kStart + absl::Seconds(i)}).ok());
  }
  const JobRecord plain = Create(Job("plain"));  // without a request_id there is nothing to keep
  ASSERT_TRUE(store_->Delete({"plain", plain.version, kStart}).ok());
  store_ = &harness_->Reopen();
  const auto buried = store_->FindRequest(kDefaultTenant, "rj1");
  ASSERT_TRUE(buried.ok() && buried->has_value()) << buried.status();
  EXPECT_TRUE((*buried)->deleted);
  EXPECT_EQ((*buried)->job_id, "j1");
  EXPECT_EQ((*buried)->digest, "digest of rj1");
  EXPECT_EQ(ReasonOf(store_->Create(Job("b", "", "rj1")).status()), kRequestIdReused);
  ASSERT_TRUE(store_->PurgeTombstones(kStart + absl::Seconds(1), 1).ok());
  EXPECT_FALSE(store_->FindRequest(kDefaultTenant, "rj0")->has_value());
  EXPECT_TRUE(store_->FindRequest(kDefaultTenant, "rj1")->has_value());
  ASSERT_TRUE(store_->PurgeTombstones(kStart + absl::Seconds(1), 10).ok());
  EXPECT_FALSE(store_->FindRequest(kDefaultTenant, "rj1")->has_value());
  EXPECT_TRUE(store_->FindRequest(kDefaultTenant, "rj2")->has_value());
  Create(Job("b", "", "rj1"));
}

TEST_P(StoreTestSuite, FindsExpiredJobsInOrder) {
  for (int i = 0; i < 4; ++i) {
    JobUpdate update = To(v1::JOB_STATE_FAILED, Create(Job(absl::StrCat("j", i))));
    if (i < 3) *update.record.job.mutable_expire_time() = ToProto(kStart + absl::Seconds(10 - i));
    Commit(update);
  }
  EXPECT_TRUE(store_->ExpiredBy(kStart + absl::Seconds(7), 10)->empty());
  EXPECT_EQ(store_->ExpiredBy(kStart + absl::Seconds(9), 10)->size(), 2u);
  const auto first = store_->ExpiredBy(kStart + absl::Seconds(20), 1);
  ASSERT_EQ(first->size(), 1u);
  EXPECT_EQ(first->front().id, "j2");
  EXPECT_EQ(first->front().job.expire_time().seconds(), absl::ToUnixSeconds(kStart) + 8);
  EXPECT_EQ(store_->ExpiredBy(absl::FromUnixSeconds(1LL << 40), 10)->size(), 3u);
}

TEST_P(StoreTestSuite, CountsStatesAndFindsTheOldestQueued) {
  EXPECT_TRUE(store_->Stats()->jobs.empty());
  EXPECT_FALSE(store_->Stats()->oldest_queue_time.has_value());
  NewJob late = Job("late");
  late.record.queue_time = kStart + absl::Seconds(5);
  Create(late);
  Create(Job("early"));
  Commit(To(v1::JOB_STATE_RUNNING, Create(Job("running"))));
  const auto stats = store_->Stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->jobs.at(v1::JOB_STATE_QUEUED), 2);
  EXPECT_EQ(stats->jobs.at(v1::JOB_STATE_RUNNING), 1);
  EXPECT_EQ(stats->oldest_queue_time, kStart);
}

}  // namespace latentforge::service
