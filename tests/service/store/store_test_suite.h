// What every Store must do. A store's own test instantiates the suite with a
// factory; see sqlite_store_test.cc.
#pragma once

#include <string>
#include <thread>
#include <vector>

#include "tests/service/store/store_fixture.h"
#include "tests/service/store/store_queue_suite.h"  // IWYU pragma: export
#include "tests/service/store/store_share_suite.h"  // IWYU pragma: export

namespace latentforge::service {

TEST_P(StoreTestSuite, KeepsEveryField) {
  NewJob job = Job("a", "/out");
  (*job.record.job.mutable_labels())["team"] = "nlp";
  *job.record.job.mutable_deadline_time() = ToProto(kStart + absl::Hours(1));
  job.record.estimate.set_peak_memory_bytes(42);
  job.record.needs = "cuda 4096 zone=a";
  JobRecord record = Create(job);
  JobUpdate update = To(v1::JOB_STATE_RUNNING, record);
  update.record.job.mutable_status()->set_worker("w");
  update.record.job.set_etag("\"7\"");
  *update.record.job.mutable_update_time() = ToProto(kStart + absl::Seconds(1));
  update.record.lease_epoch = 3;
  update.record.completed_epoch = 2;
  update.record.counted_attempts = 4;
  update.record.attempt_sequence = 5;
  update.record.lease_subject = "spiffe://example.org/w1";
  update.record.subject_epoch = 3;
  update.record.attempt_start_time = kStart + absl::Microseconds(1);
  update.record.lease_expire_time = kStart + absl::Microseconds(2);
  update.record.queue_time = kStart + absl::Microseconds(3);
  update.record.claimable_time = kStart + absl::Microseconds(4);
  update.record.rank_time = kStart + absl::Microseconds(6);
  update.record.progress_event_time = kStart + absl::Microseconds(5);
  update.record.progress_event_percent = 12.5;
  const JobRecord written = Commit(update);
  store_ = &harness_->Reopen();
  const auto read = store_->Get("a");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->job.DebugString(), update.record.job.DebugString());
  EXPECT_EQ(read->estimate.peak_memory_bytes(), 42);
  EXPECT_EQ(read->ordinal, record.ordinal);
  EXPECT_EQ(read->version, written.version);
  EXPECT_EQ(read->output_path, "/out");
  EXPECT_EQ(read->needs, "cuda 4096 zone=a");
  EXPECT_EQ(read->lease_epoch, 3);
  EXPECT_EQ(read->completed_epoch, 2);
  EXPECT_EQ(read->counted_attempts, 4);
  EXPECT_EQ(read->attempt_sequence, 5);
  EXPECT_EQ(read->lease_subject, "spiffe://example.org/w1");
  EXPECT_EQ(read->subject_epoch, 3);
  EXPECT_EQ(read->attempt_start_time, kStart + absl::Microseconds(1));
  EXPECT_EQ(read->lease_expire_time, kStart + absl::Microseconds(2));
  EXPECT_EQ(read->queue_time, kStart + absl::Microseconds(3));
  EXPECT_EQ(read->claimable_time, kStart + absl::Microseconds(4));
  EXPECT_EQ(read->rank_time, kStart + absl::Microseconds(6));
  EXPECT_EQ(read->progress_event_time, kStart + absl::Microseconds(5));
  EXPECT_EQ(read->progress_event_percent, 12.5);
}

TEST_P(StoreTestSuite, KeepsAnyTextFromOutside) {
  using std::string_literals::operator""s;
  const std::string path = "/no UTF-8: \xFF'\\";
  NewJob job = Job("a", path, "r\0\1"s);
  (*job.record.job.mutable_labels())["k\0\""s] = "v\0'"s;
  JobUpdate update = To(v1::JOB_STATE_RUNNING, Create(job));
  update.attempt = {.number = 1, .worker = "w\0"s};
  Commit(update);
  EXPECT_EQ(store_->Get("a")->output_path, path);
  EXPECT_EQ((*store_->FindRequest(kDefaultTenant, "r\0\1"s))->job_id, "a");
  EXPECT_FALSE(store_->FindRequest(kDefaultTenant, "r")->has_value());
  EXPECT_THAT(ListIds({.labels = {{"k\0\""s, "v\0'"s}}}), testing::ElementsAre("a"));
  EXPECT_EQ(store_->Attempts("a", 0, 1)->front().worker, "w\0"s);
}

TEST_P(StoreTestSuite, KeepsTheLongestPaths) {
  const std::string path = "/" + std::string(4094, 'x');
  Create(Job("a", path));
  EXPECT_EQ(store_->Get("a")->output_path, path);
  EXPECT_EQ(ReasonOf(store_->Create(Job("b", path)).status()), kOutputInUse);
}

TEST_P(StoreTestSuite, KeepsManyEventsOfOneCommit) {
  JobUpdate update = To(v1::JOB_STATE_RUNNING, Create(Job("a")));
  while (update.events.size() < 2345)
    update.events.push_back(
        Event(static_cast<int64_t>(update.events.size()) + 2, v1::JOB_STATE_RUNNING));
  Commit(update);
  const auto events = store_->Events("a", 0, 5000);
  ASSERT_TRUE(events.ok());
  ASSERT_EQ(events->size(), 2346u);
  EXPECT_EQ(events->back().sequence(), 2346);
}

TEST_P(StoreTestSuite, UnknownJobsAreNotFound) {
  EXPECT_EQ(ReasonOf(store_->Get("nope").status()), kJobNotFound);
  EXPECT_EQ(ReasonOf(store_->Events("nope", 0, 10).status()), kJobNotFound);
  EXPECT_EQ(ReasonOf(store_->Attempts("nope", 0, 10).status()), kJobNotFound);
  EXPECT_EQ(ReasonOf(store_->Delete({"nope", 1, kStart})), kJobNotFound);
  JobUpdate update = To(v1::JOB_STATE_RUNNING, Job("nope").record);
  EXPECT_EQ(ReasonOf(store_->Commit(update).status()), kJobNotFound);
}

TEST_P(StoreTestSuite, AStaleVersionWritesNothing) {
  const JobRecord record = Create(Job("a"));
  Commit(To(v1::JOB_STATE_RUNNING, record));
  const absl::Status stale = store_->Commit(To(v1::JOB_STATE_CANCELLED, record)).status();
  EXPECT_EQ(stale.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(stale), kConcurrentTransition);
  EXPECT_EQ(store_->Get("a")->job.status().state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(store_->Events("a", 0, 10)->size(), 2u);
}

TEST_P(StoreTestSuite, OneOfManyConcurrentCommitsWins) {
  const JobRecord record = Create(Job("a"));
  std::vector<std::thread> threads;
  std::vector<int> won(8);
  for (size_t i = 0; i < won.size(); ++i)
    threads.emplace_back(
        [&, i] { won[i] = store_->Commit(To(v1::JOB_STATE_RUNNING, record)).ok(); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::count(won.begin(), won.end(), 1), 1);
  EXPECT_EQ(store_->Events("a", 0, 100)->size(), 2u);
}

TEST_P(StoreTestSuite, AnEventThatCannotBeStoredUndoesTheRow) {
  const JobRecord record = Create(Job("a"));
  JobUpdate update = To(v1::JOB_STATE_RUNNING, record);
  update.events[0].set_sequence(1);  // taken
  EXPECT_FALSE(store_->Commit(update).ok());
  EXPECT_EQ(store_->Get("a")->job.status().state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(store_->Get("a")->version, record.version);
}

TEST_P(StoreTestSuite, RequestIdsAreFoundAndTaken) {
  Create(Job("a", "", "r1"));
  const auto found = store_->FindRequest(kDefaultTenant, "r1");
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ((*found)->job_id, "a");
  EXPECT_EQ((*found)->digest, "digest of r1");
  EXPECT_FALSE(store_->FindRequest(kDefaultTenant, "r2")->has_value());
  EXPECT_EQ(ReasonOf(store_->Create(Job("b", "", "r1")).status()), kRequestIdReused);
  EXPECT_EQ(ReasonOf(store_->Get("b").status()), kJobNotFound);
}

TEST_P(StoreTestSuite, TenantsHaveListsAndRequestIdsOfTheirOwn) {
  NewJob other = Job("b", "", "r1");
  other.record.tenant = "search";
  Create(Job("a", "", "r1"));
  Create(other);
  EXPECT_EQ((*store_->FindRequest("search", "r1"))->job_id, "b");
  EXPECT_EQ((*store_->FindRequest(kDefaultTenant, "r1"))->job_id, "a");
  EXPECT_FALSE(store_->FindRequest("speech", "r1")->has_value());
  EXPECT_EQ(ReasonOf(store_->Create(Job("c", "", "r1")).status()), kRequestIdReused);
  EXPECT_EQ(store_->Get("b")->tenant, "search");
  EXPECT_EQ(store_->Get("b")->job.tenant(), "search");
  EXPECT_THAT(ListIds({}), testing::ElementsAre("b", "a"));
  EXPECT_THAT(ListIds({.tenant = "search"}), testing::ElementsAre("b"));
  EXPECT_THAT(ListIds({.tenant = "speech"}), testing::IsEmpty());
}

TEST_P(StoreTestSuite, ListsNewestFirstByPageAndFilter) {
  for (int i = 0; i < 5; ++i) {
    NewJob job = Job(absl::StrCat("j", i));
    (*job.record.job.mutable_labels())["parity"] = i % 2 == 0 ? "even" : "odd";
    (*job.record.job.mutable_labels())["all"] = "yes";
    const JobRecord record = Create(job);
    if (i == 4) Commit(To(v1::JOB_STATE_CANCELLED, record));
  }
  EXPECT_THAT(ListIds({.limit = 2}), testing::ElementsAre("j4", "j3"));
  const int64_t after = store_->Get("j3")->ordinal;
  EXPECT_THAT(ListIds({.before_ordinal = after, .limit = 2}), testing::ElementsAre("j2", "j1"));
  EXPECT_THAT(ListIds({.labels = {{"parity", "even"}, {"all", "yes"}}}),
              testing::ElementsAre("j4", "j2", "j0"));
  EXPECT_THAT(ListIds({.states = {v1::JOB_STATE_QUEUED}, .labels = {{"parity", "even"}}}),
              testing::ElementsAre("j2", "j0"));
  EXPECT_THAT(ListIds({.labels = {{"parity", "none"}}}), testing::IsEmpty());
}

// Against every job, asked one by one.
TEST_P(StoreTestSuite, ListsByTenantStatesAndLabelsAtOnceByPages) {
  std::vector<JobRecord> jobs;
  for (int i = 0; i < 24; ++i) {
    NewJob job = Job(absl::StrCat("j", i));
    if (i % 3 == 0) job.record.tenant = "search";
    (*job.record.job.mutable_labels())["parity"] = i % 2 == 0 ? "even" : "odd";
    if (i % 4 != 0) (*job.record.job.mutable_labels())["most"] = "yes";
    const JobRecord record = Create(job);
    const v1::JobState later[] = {v1::JOB_STATE_QUEUED, v1::JOB_STATE_RUNNING,
                                  v1::JOB_STATE_CANCELLED};
    jobs.insert(jobs.begin(), i % 5 < 3 ? Commit(To(later[i % 5], record)) : record);
  }
  const std::vector<v1::JobState> states[] = {
      {},
      {v1::JOB_STATE_QUEUED},
      {v1::JOB_STATE_CANCELLED, v1::JOB_STATE_QUEUED, v1::JOB_STATE_CANCELLED},
      {v1::JOB_STATE_RUNNING, v1::JOB_STATE_CANCELLED, v1::JOB_STATE_PAUSED}};
  const std::map<std::string, std::string> labels[] = {
      {}, {{"most", "yes"}}, {{"most", "yes"}, {"parity", "odd"}}, {{"most", "no"}}};
  for (const std::string tenant : {"", kDefaultTenant, "search"}) {
    for (const auto& of_states : states) {
      for (const auto& of_labels : labels) {
        JobQuery query{.tenant = tenant, .states = of_states, .labels = of_labels, .limit = 3};
        std::vector<std::string> expected;
        for (const JobRecord& job : jobs) {
          const bool labelled =
              std::all_of(of_labels.begin(), of_labels.end(), [&job](const auto& label) {
                const auto found = job.job.labels().find(label.first);
                return found != job.job.labels().end() && found->second == label.second;
              });
          const bool in_state = of_states.empty() || std::count(of_states.begin(), of_states.end(),
                                                                job.job.status().state()) > 0;
          if (labelled && in_state && (tenant.empty() || job.tenant == tenant))
            expected.push_back(job.id);
        }
        std::vector<std::string> listed;
        while (true) {
          const std::vector<std::string> page = ListIds(query);
          if (page.empty()) break;
          listed.insert(listed.end(), page.begin(), page.end());
          query.before_ordinal = store_->Get(page.back())->ordinal;
        }
        EXPECT_EQ(listed, expected)
            << tenant << " " << of_states.size() << " states, " << of_labels.size() << " labels";
      }
    }
  }
}

TEST_P(StoreTestSuite, EventsComeInOrderAfterASequence) {
  JobRecord record = Create(Job("a"));
  for (int i = 0; i < 9; ++i) record = Commit(To(v1::JOB_STATE_RUNNING, record));
  const auto events = store_->Events("a", 4, 3);
  ASSERT_TRUE(events.ok());
  ASSERT_EQ(events->size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ((*events)[i].sequence(), 5 + i);
  EXPECT_TRUE(store_->Events("a", 10, 3)->empty());
}

TEST_P(StoreTestSuite, EventsAreRemovedUpToASequenceButForThoseToKeep) {
  JobRecord record = Create(Job("a"));
  for (int i = 0; i < 9; ++i) record = Commit(To(v1::JOB_STATE_RUNNING, record));
  EXPECT_EQ(*store_->CompactedThrough("a"), 0);
  ASSERT_TRUE(store_->CompactEvents({"a", 5, {1, 2}}).ok());
  EXPECT_EQ(*store_->CompactedThrough("a"), 5);
  EXPECT_THAT(EventsOf("a"), testing::ElementsAre(1, 2, 6, 7, 8, 9, 10));
  ASSERT_TRUE(store_->CompactEvents({"a", 4, {}}).ok()) << "that was done already";
  EXPECT_THAT(EventsOf("a"), testing::ElementsAre(1, 2, 6, 7, 8, 9, 10));
  store_ = &harness_->Reopen();
  ASSERT_TRUE(store_->CompactEvents({"a", 8, {7}}).ok());
  EXPECT_EQ(*store_->CompactedThrough("a"), 8);
  EXPECT_THAT(EventsOf("a"), testing::ElementsAre(1, 2, 7, 9, 10));
  EXPECT_EQ(Commit(To(v1::JOB_STATE_RUNNING, record)).version, record.version + 1);
  EXPECT_EQ(ReasonOf(store_->CompactEvents({"nope", 1, {}})), kJobNotFound);
  EXPECT_EQ(ReasonOf(store_->CompactedThrough("nope").status()), kJobNotFound);
}

TEST_P(StoreTestSuite, LongHistoriesAreThoseOfJobsInAnyState) {
  const auto with_events = [this](const std::string& id, v1::JobState state, int64_t last) {
    JobRecord record = Create(Job(id));
    record.job.set_last_sequence(last - 1);
    Commit(To(state, record));
  };
  with_events("short", v1::JOB_STATE_RUNNING, 1500);
  const std::pair<const char*, v1::JobState> longer[] = {{"ended", v1::JOB_STATE_FAILED},
                                                         {"paused", v1::JOB_STATE_PAUSED},
                                                         {"queued", v1::JOB_STATE_QUEUED},
                                                         {"running", v1::JOB_STATE_RUNNING}};
  for (const auto& [id, state] : longer) with_events(id, state, 1501);
  auto spans = store_->LongHistories(1500, 10);
  ASSERT_TRUE(spans.ok()) << spans.status();
  std::vector<std::string> ids;
  for (const EventSpan& span : *spans) {
    ids.push_back(span.id);
    EXPECT_EQ(span.compacted, 0);
    EXPECT_EQ(span.last, 1501);
  }
  EXPECT_THAT(ids, testing::UnorderedElementsAre("ended", "paused", "queued", "running"));
  EXPECT_EQ(store_->LongHistories(1500, 3)->size(), 3u);
  EXPECT_EQ(store_->LongHistories(kLeastLongHistory, 10)->size(), 5u);
  ASSERT_TRUE(store_->CompactEvents({"ended", 3, {}}).ok());
  EXPECT_EQ(store_->LongHistories(1498, 10)->size(), 4u);
  spans = store_->LongHistories(1497, 10);
  EXPECT_EQ(std::count_if(spans->begin(), spans->end(),
                          [](const EventSpan& span) { return span.compacted == 3; }),
            1);
}

TEST_P(StoreTestSuite, KnowsTheLastSequences) {
  Create(Job("a"));
  Commit(To(v1::JOB_STATE_RUNNING, Create(Job("b"))));
  Create(Job("c"));
  const auto sequences = store_->LastSequences({"a", "b", "nope"});
  ASSERT_TRUE(sequences.ok()) << sequences.status();
  EXPECT_THAT(*sequences, testing::ElementsAre(testing::Pair("a", 1), testing::Pair("b", 2)));
  EXPECT_THAT(*store_->LastSequences({}), testing::IsEmpty());
}

TEST_P(StoreTestSuite, AttemptsAreReplacedByNumber) {
  JobUpdate update = To(v1::JOB_STATE_RUNNING, Create(Job("a")));
  update.attempt = {.number = 1, .lease_epoch = 1, .worker = "w", .start_time = kStart};
  const JobRecord running = Commit(update);
  update = To(v1::JOB_STATE_FAILED, running);
  update.attempt = {.number = 1,
                    .lease_epoch = 1,
                    .worker = "w",
                    .start_time = kStart,
                    .end_time = kStart + absl::Seconds(5),
                    .outcome = AttemptOutcome::kFailed};
  update.attempt->error.set_reason("DISK_FULL");
  update.attempt->error.set_message("no room in /scratch");
  update.attempt->phases.emplace_back().set_seconds(5);
  Commit(update);
  const auto attempts = store_->Attempts("a", 0, 10);
  ASSERT_TRUE(attempts.ok());
  ASSERT_EQ(attempts->size(), 1u);
  EXPECT_EQ(attempts->front().outcome, AttemptOutcome::kFailed);
  EXPECT_EQ(attempts->front().error.message(), "no room in /scratch");
  ASSERT_EQ(attempts->front().phases.size(), 1u);
  EXPECT_EQ(attempts->front().phases.front().seconds(), 5);
  EXPECT_EQ(attempts->front().end_time, kStart + absl::Seconds(5));
}

TEST_P(StoreTestSuite, AttemptsComeInOrderAfterANumber) {
  JobRecord record = Create(Job("a"));
  for (int number = 1; number <= 12; ++number) {
    JobUpdate update = To(v1::JOB_STATE_RUNNING, record);
    update.attempt = {.number = number};
    record = Commit(update);
  }
  const auto attempts = store_->Attempts("a", 8, 3);
  ASSERT_TRUE(attempts.ok()) << attempts.status();
  ASSERT_EQ(attempts->size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ((*attempts)[i].number, 9 + i);
  EXPECT_TRUE(store_->Attempts("a", 12, 3)->empty());
}

TEST_P(StoreTestSuite, SecretsStay) {
  const std::string fresh("\0key", 4);
  EXPECT_EQ(*store_->GetOrPutSecret("s", fresh), fresh);
  store_ = &harness_->Reopen();
  EXPECT_EQ(*store_->GetOrPutSecret("s", "other"), fresh);
}

}  // namespace latentforge::service
