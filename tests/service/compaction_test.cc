#include "service/compaction.h"

#include "service/watch_session.h"
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

class CompactionTest : public SchedulerFixture {
 protected:
  void Report(const v1::Lease& lease, int count) {
    v1::ReportEventsRequest report;
    *report.mutable_lease() = lease;
    for (int i = 0; i < count; ++i) {
      report.add_events()->set_sequence(++reported_);
      report.mutable_events(i)->mutable_perplexity()->set_value(2);
    }
    EXPECT_TRUE(scheduler_->ReportEvents(kWorker, report).ok());
  }

  // As often as maintenance would.
  void Sweep(int64_t events_per_job) {
    Compaction compaction(*engine_, events_per_job);
    for (int i = 0; i < 20; ++i) {
      const absl::Status swept = compaction.Sweep();
      EXPECT_TRUE(swept.ok()) << swept;
    }
  }

  int64_t Last() { return store_->Get("j1")->job.last_sequence(); }

  absl::StatusOr<std::unique_ptr<WatchSession>> Watch(int64_t from) {
    v1::WatchJobRequest request;
    request.set_name("jobs/j1");
    request.set_from_sequence(from);
    return WatchSession::Start(kCaller, *store_, hub_, request, [] {});
  }

  int64_t reported_ = 0;
};

TEST_F(CompactionTest, AJobWithinItsLimitKeepsEveryEvent) {
  CreateJob();
  Report(Acquire().lease(), 998);
  Sweep(1000);
  EXPECT_EQ(*store_->CompactedThrough("j1"), 0);
  EXPECT_EQ(store_->Events("j1", 0, 10'000)->size(), 1000u);
}

TEST_F(CompactionTest, TheOldestGoInBatchesAndChangesOfStateStay) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  Report(lease, 5000);
  Sweep(1000);
  const int64_t compacted = *store_->CompactedThrough("j1");
  EXPECT_LE(Last() - compacted, 1000);
  EXPECT_GE(Last() - compacted, 900);
  const auto events = *store_->Events("j1", 0, 10'000);
  EXPECT_EQ(events[0].state_changed().state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(events[1].state_changed().state(), v1::JOB_STATE_RUNNING);
  for (size_t i = 2; i < events.size(); ++i)
    EXPECT_EQ(events[i].sequence(), compacted + static_cast<int64_t>(i) - 1);
  // The job goes on as if nothing had happened, and is compacted again.
  Report(lease, 2000);
  Sweep(1000);
  EXPECT_LE(Last() - *store_->CompactedThrough("j1"), 1000);
  EXPECT_EQ(store_->Events("j1", 0, 2)->back().state_changed().state(), v1::JOB_STATE_RUNNING);
  EXPECT_TRUE(Complete(lease, Succeeded()).ok());
}

TEST_F(CompactionTest, AWatchFromARemovedEventIsToldTheOldestThatIsLeft) {
  CreateJob();
  Report(Acquire().lease(), 3000);
  Sweep(1000);
  const int64_t compacted = *store_->CompactedThrough("j1");
  const absl::Status refused = Watch(compacted - 1).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ReasonOf(refused), kSequenceCompacted);
  EXPECT_THAT(ToRpcStatus(refused).DebugString(), testing::HasSubstr(absl::StrCat(compacted + 1)));
  const auto kept = Watch(compacted);
  ASSERT_TRUE(kept.ok()) << kept.status();
  int64_t sequence = compacted;
  ASSERT_TRUE((*kept)->Next()->value().has_snapshot());
  for (auto next = (*kept)->Next(); next.ok() && next->has_value(); next = (*kept)->Next())
    EXPECT_EQ((*next)->event().sequence(), ++sequence);
  EXPECT_EQ(sequence, Last());
}

TEST_F(CompactionTest, AWatchThatFallsBehindWhatIsRemovedIsToldSo) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  auto slow = Watch(0);
  ASSERT_TRUE(slow.ok()) << slow.status();
  ASSERT_TRUE((*slow)->Next()->value().has_snapshot());
  EXPECT_EQ((*slow)->Next()->value().event().sequence(), 1);
  Report(lease, 3000);
  Sweep(1000);
  absl::StatusOr<std::optional<v1::WatchJobResponse>> next = (*slow)->Next();
  int64_t sequence = 1;
  for (; next.ok() && next->has_value(); next = (*slow)->Next())
    EXPECT_EQ((*next)->event().sequence(), ++sequence);
  EXPECT_EQ(ReasonOf(next.status()), kSequenceCompacted);
}

TEST_F(CompactionTest, AJobThatHasEndedKeepsNoMore) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  Report(lease, 3000);
  ASSERT_TRUE(Complete(lease, Succeeded()).ok());
  Sweep(1000);
  const int64_t compacted = *store_->CompactedThrough("j1");
  EXPECT_LE(Last() - compacted, 1000);
  EXPECT_GE(Last() - compacted, 900);
  EXPECT_EQ(store_->Events("j1", 0, 2)->back().state_changed().state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(ReasonOf(Watch(compacted - 1).status()), kSequenceCompacted);
  // Who is within what is left comes to the end without a gap.
  const auto kept = Watch(compacted);
  ASSERT_TRUE(kept.ok()) << kept.status();
  ASSERT_TRUE((*kept)->Next()->value().has_snapshot());
  int64_t sequence = compacted;
  for (auto next = (*kept)->Next(); next.ok() && next->has_value(); next = (*kept)->Next())
    EXPECT_EQ((*next)->event().sequence(), ++sequence);
  EXPECT_EQ(sequence, Last());
  EXPECT_TRUE((*kept)->finished());
}

TEST_F(CompactionTest, AJobThatFailsAgainAndAgainKeepsNoMore) {
  CreateJob();
  for (int attempt = 0; attempt < 3; ++attempt) {
    const v1::Lease lease = Acquire().lease();
    reported_ = 0;
    Report(lease, 600);
    v1::CompleteAttemptRequest failed;
    failed.mutable_error()->set_retryable(true);
    failed.mutable_error()->set_error_class(v1::ERROR_CLASS_SYSTEM);
    ASSERT_TRUE(Complete(lease, failed).ok());
    clock_.Advance(absl::Minutes(10));
    Sweep(1000);
    EXPECT_LE(Last() - *store_->CompactedThrough("j1"), 1000);
  }
  EXPECT_EQ(StateOf("jobs/j1"), v1::JOB_STATE_FAILED);
  EXPECT_GT(*store_->CompactedThrough("j1"), 0);
}

TEST_F(CompactionTest, AJobThatWaitsKeepsNoMore) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  Report(lease, 2000);
  v1::CompleteAttemptRequest released;
  released.mutable_released();
  ASSERT_TRUE(Complete(lease, released).ok());
  Pause(job);
  ASSERT_EQ(StateOf(job), v1::JOB_STATE_PAUSED);
  Sweep(1000);
  EXPECT_LE(Last() - *store_->CompactedThrough("j1"), 1000);
  Resume(job);
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_QUEUED);
}

TEST_F(CompactionTest, NothingIsLookedForWithinTenSeconds) {
  CreateJob();
  Compaction compaction(*engine_, 1000);
  ASSERT_TRUE(compaction.Sweep().ok());
  faulty_.TakeCalls("LongHistories");
  ASSERT_TRUE(compaction.Sweep().ok());
  EXPECT_EQ(faulty_.TakeCalls("LongHistories"), 0);
  clock_.StepWall(-absl::Hours(1));
  clock_.Advance(absl::Seconds(10));
  ASSERT_TRUE(compaction.Sweep().ok());
  EXPECT_EQ(faulty_.TakeCalls("LongHistories"), 1);
}

}  // namespace
}  // namespace latentforge::service
