#include "service/watch_session.h"

#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

class WatchSessionTest : public SchedulerFixture {
 protected:
  std::unique_ptr<WatchSession> Watch(const std::string& name,
                                      std::optional<int64_t> from = std::nullopt) {
    auto session =
        WatchSession::Start(kCaller, *store_, hub_, Request(name, from), [this] { ++notified_; });
    EXPECT_TRUE(session.ok()) << session.status();
    return *std::move(session);
  }

  static v1::WatchJobRequest Request(const std::string& name, std::optional<int64_t> from) {
    v1::WatchJobRequest request;
    request.set_name(name);
    if (from.has_value()) request.set_from_sequence(*from);
    return request;
  }

  // Everything that is there now.
  static std::vector<v1::WatchJobResponse> Drain(WatchSession& session) {
    std::vector<v1::WatchJobResponse> all;
    while (true) {
      auto next = session.Next();
      EXPECT_TRUE(next.ok()) << next.status();
      if (!next.ok() || !next->has_value()) return all;
      all.push_back(**std::move(next));
    }
  }

  // Adds `count` log events to a running job.
  void Log(const v1::Lease& lease, int count) {
    v1::ReportEventsRequest report;
    *report.mutable_lease() = lease;
    for (int i = 0; i < count; ++i) {
      report.add_events()->set_sequence(++reported_);
      report.mutable_events(i)->mutable_log()->set_text("line");
    }
    EXPECT_TRUE(scheduler_->ReportEvents(kWorker, report).ok());
  }

  static void ExpectDense(const std::vector<v1::WatchJobResponse>& messages, int64_t first,
                          int64_t last) {
    int64_t expected = first;
    for (const v1::WatchJobResponse& message : messages)
      EXPECT_EQ(message.event().sequence(), expected++);
    EXPECT_EQ(expected, last + 1);
  }

  int notified_ = 0;
  int64_t reported_ = 0;
};

TEST_F(WatchSessionTest, AnEndThatARetryTookBackEndsNoWatch) {
  const std::string job = CreateJob();
  Cancel(job);
  v1::RetryJobRequest retry;
  retry.set_name(job);
  ASSERT_TRUE(jobs_->Retry(retry).ok());
  const auto session = Watch(job, 0);
  EXPECT_EQ(Drain(*session).size(), 4u);  // snapshot, queued, cancelled, queued
  EXPECT_FALSE(session->finished());
  Cancel(job);
  EXPECT_EQ(Drain(*session).size(), 1u);
  EXPECT_TRUE(session->finished());
}

TEST_F(WatchSessionTest, SnapshotThenEveryEventThenTheEnd) {
  const std::string job = CreateJob();
  const auto session = Watch(job);
  auto messages = Drain(*session);
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(messages[0].snapshot().job().name(), job);
  EXPECT_EQ(messages[0].snapshot().sequence(), 1);
  const v1::Lease lease = Acquire().lease();
  EXPECT_EQ(notified_, 1);
  Log(lease, 3);
  ASSERT_TRUE(Complete(lease, Succeeded()).ok());
  EXPECT_FALSE(session->finished());
  messages = Drain(*session);
  ExpectDense(messages, 2, 6);
  EXPECT_EQ(messages.back().event().state_changed().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_TRUE(session->finished());
}

TEST_F(WatchSessionTest, ResumesAfterAnySequence) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  Log(lease, 3);
  for (int64_t from = 0; from <= 5; ++from) {
    const auto session = Watch(job, from);
    auto messages = Drain(*session);
    ASSERT_FALSE(messages.empty());
    EXPECT_TRUE(messages.front().has_snapshot());
    messages.erase(messages.begin());
    ExpectDense(messages, from + 1, 5);
    EXPECT_FALSE(session->finished());
  }
  const absl::Status ahead =
      WatchSession::Start(kCaller, *store_, hub_, Request(job, 6), [] {}).status();
  EXPECT_EQ(ahead.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ReasonOf(ahead), "SEQUENCE_AHEAD");
  EXPECT_EQ(WatchSession::Start(kCaller, *store_, hub_, Request(job, -1), [] {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(WatchSessionTest, ResumingAnEndedJobReplaysAndEnds) {
  const std::string job = CreateJob();
  Cancel(job);
  const auto replay = Watch(job, 0);
  EXPECT_EQ(Drain(*replay).size(), 3u);  // snapshot, queued, cancelled
  EXPECT_TRUE(replay->finished());
  const auto caught_up = Watch(job, 2);
  EXPECT_EQ(Drain(*caught_up).size(), 1u);
  EXPECT_TRUE(caught_up->finished());
  const auto fresh = Watch(job);
  EXPECT_EQ(Drain(*fresh).size(), 1u);
  EXPECT_TRUE(fresh->finished());
}

TEST_F(WatchSessionTest, ASlowWatcherReadsFromTheStoreWhatTheRingDropped) {
  const std::string job = CreateJob();
  const auto session = Watch(job);
  const v1::Lease lease = Acquire().lease();
  const int64_t count = 2 * static_cast<int64_t>(WatchHub::kRing) + 100;
  Log(lease, static_cast<int>(count));
  auto messages = Drain(*session);
  messages.erase(messages.begin());
  ExpectDense(messages, 2, 2 + count);
  Log(lease, 1);
  ExpectDense(Drain(*session), 3 + count, 3 + count);
}

TEST_F(WatchSessionTest, EventsPublishedOutOfOrderAreSentInOrder) {
  const std::string job = CreateJob();
  const auto session = Watch(job);
  Drain(*session);
  const v1::Lease lease = Acquire().lease();
  Log(lease, 2);
  const auto events = *store_->Events("j1", 1, 10);
  const auto other = Watch(job, 1);
  // The hub of this watcher hears of the later events first, and of one twice.
  hub_.Publish("j1", {events[2], events[0], events[1], events[1]});
  auto messages = Drain(*other);
  messages.erase(messages.begin());
  ExpectDense(messages, 2, 4);
}

TEST_F(WatchSessionTest, BookmarksNameTheLastSequence) {
  const auto session = Watch(CreateJob());
  Drain(*session);
  Acquire();
  Drain(*session);
  EXPECT_EQ(session->MakeBookmark(clock_.Now()).bookmark().sequence(), 2);
}

TEST_F(WatchSessionTest, NobodyIsNotifiedAfterTheEnd) {
  const std::string job = CreateJob();
  Watch(job).reset();
  Cancel(job);
  EXPECT_EQ(notified_, 0);
}

TEST_F(WatchSessionTest, AnUnknownJobIsNotFound) {
  EXPECT_EQ(
      ReasonOf(WatchSession::Start(kCaller, *store_, hub_, Request("jobs/x", {}), [] {}).status()),
      kJobNotFound);
}

}  // namespace
}  // namespace latentforge::service
