// What every Store must do. A store's own test instantiates the suite with a
// factory; see sqlite_store_test.cc.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/auth/identity.h"
#include "service/errors.h"
#include "service/store/store.h"
#include "service/time_util.h"

namespace latentforge::service {

// Makes and opens again one store; lives as long as a test.
class StoreHarness {
 public:
  virtual ~StoreHarness() = default;
  // Closes the store, if there is one, and opens it again with what it held.
  virtual Store& Reopen() = 0;
};

using StoreHarnessFactory = std::function<std::unique_ptr<StoreHarness>()>;

class StoreTestSuite : public testing::TestWithParam<StoreHarnessFactory> {
 protected:
  void SetUp() override {
    harness_ = GetParam()();
    store_ = &harness_->Reopen();
  }

  inline static const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

  static NewJob Job(const std::string& id, const std::string& output = "",
                    const std::string& request_id = "") {
    NewJob job;
    job.record.id = id;
    job.record.tenant = kDefaultTenant;
    job.record.job.set_tenant(kDefaultTenant);
    job.record.job.set_name("jobs/" + id);
    job.record.job.mutable_spec()->mutable_source()->set_uri("file:///models/" + id);
    job.record.job.mutable_status()->set_state(v1::JOB_STATE_QUEUED);
    *job.record.job.mutable_create_time() = ToProto(kStart);
    *job.record.job.mutable_update_time() = ToProto(kStart);
    job.record.job.set_last_sequence(1);
    job.record.output_path = output;
    job.record.queue_time = kStart;
    job.record.claimable_time = kStart;
    job.record.rank_time = kStart;
    job.events.push_back(Event(1, v1::JOB_STATE_QUEUED));
    job.request_id = request_id;
    job.request_digest = "digest of " + request_id;
    return job;
  }

  static v1::JobEvent Event(int64_t sequence, v1::JobState state) {
    v1::JobEvent event;
    event.set_sequence(sequence);
    event.mutable_state_changed()->set_state(state);
    return event;
  }

  JobRecord Create(const NewJob& job) {
    absl::StatusOr<JobRecord> created = store_->Create(job);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? *created : JobRecord();
  }

  // An update of `record` to `state`, with one event.
  static JobUpdate To(v1::JobState state, JobRecord record) {
    JobUpdate update;
    update.expected_version = record.version;
    update.record = std::move(record);
    update.record.job.mutable_status()->set_state(state);
    update.record.job.set_last_sequence(update.record.job.last_sequence() + 1);
    update.events.push_back(Event(update.record.job.last_sequence(), state));
    return update;
  }

  JobRecord Commit(const JobUpdate& update) {
    absl::StatusOr<JobRecord> committed = store_->Commit(update);
    EXPECT_TRUE(committed.ok()) << committed.status();
    return committed.ok() ? *committed : JobRecord();
  }

  // The job that is claimed and runs now; empty when there is none.
  std::string ClaimId(const ClaimQuery& query) {
    const auto claimed = store_->Claim(query, [](const JobRecord& candidate) {
      return absl::StatusOr<JobUpdate>(To(v1::JOB_STATE_RUNNING, candidate));
    });
    EXPECT_TRUE(claimed.ok()) << claimed.status();
    return claimed.ok() && claimed->has_value() ? (*claimed)->id : "";
  }

  std::vector<std::string> ListIds(const JobQuery& query) {
    const auto listed = store_->List(query);
    EXPECT_TRUE(listed.ok()) << listed.status();
    std::vector<std::string> ids;
    if (listed.ok())
      for (const JobRecord& record : *listed) ids.push_back(record.id);
    return ids;
  }

  std::unique_ptr<StoreHarness> harness_;
  Store* store_ = nullptr;
};

TEST_P(StoreTestSuite, KeepsEveryField) {
  NewJob job = Job("a", "/out");
  (*job.record.job.mutable_labels())["team"] = "nlp";
  *job.record.job.mutable_deadline_time() = ToProto(kStart + absl::Hours(1));
  job.record.estimate.set_peak_memory_bytes(42);
  job.record.needs_cuda = true;
  JobRecord record = Create(job);
  JobUpdate update = To(v1::JOB_STATE_RUNNING, record);
  update.record.job.mutable_status()->set_worker("w");
  update.record.job.set_etag("\"7\"");
  *update.record.job.mutable_update_time() = ToProto(kStart + absl::Seconds(1));
  update.record.lease_epoch = 3;
  update.record.completed_epoch = 2;
  update.record.counted_attempts = 4;
  update.record.attempt_sequence = 5;
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
  EXPECT_TRUE(read->needs_cuda);
  EXPECT_EQ(read->lease_epoch, 3);
  EXPECT_EQ(read->completed_epoch, 2);
  EXPECT_EQ(read->counted_attempts, 4);
  EXPECT_EQ(read->attempt_sequence, 5);
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

TEST_P(StoreTestSuite, ClaimsTheFirstByRankThatMayRun) {
  NewJob later = Job("later");
  later.record.claimable_time = kStart + absl::Seconds(10);
  NewJob cuda = Job("cuda");
  cuda.record.needs_cuda = true;
  NewJob urgent = Job("urgent");
  urgent.record.rank_time = kStart - absl::Hours(1);
  NewJob idle = Job("idle");
  idle.record.rank_time = kStart + absl::Hours(1);
  for (const NewJob* job : {&idle, &later, &cuda}) Create(*job);
  Create(Job("plain"));
  Create(urgent);
  Commit(To(v1::JOB_STATE_PAUSED, Create(Job("paused"))));
  EXPECT_EQ(ClaimId({kStart, false}), "urgent");
  EXPECT_EQ(ClaimId({kStart, false}), "plain");
  EXPECT_EQ(ClaimId({kStart, true}), "cuda");
  EXPECT_EQ(ClaimId({kStart + absl::Seconds(10), false}), "later");
  EXPECT_EQ(ClaimId({kStart, false}), "idle");
  EXPECT_EQ(ClaimId({kStart, true}), "");
}

TEST_P(StoreTestSuite, AClaimWritesWhatIsDecidedOrNothing) {
  const JobRecord record = Create(Job("a"));
  const auto refused =
      store_->Claim({kStart, true}, [](const JobRecord&) -> absl::StatusOr<JobUpdate> {
        return absl::FailedPreconditionError("not this one");
      });
  EXPECT_EQ(refused.status().message(), "not this one");
  EXPECT_EQ(store_->Get("a")->version, record.version);
  const auto claimed = store_->Claim({kStart, true}, [](const JobRecord& candidate) {
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
  for (std::string& id : claimed) threads.emplace_back([&] { id = ClaimId({kStart, true}); });
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
  EXPECT_EQ(ClaimId({kStart, true}), "");
  EXPECT_EQ(ReasonOf(store_->Create(Job("b", "/out")).status()), kOutputInUse);
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

TEST_P(StoreTestSuite, KnowsTheLastSequences) {
  Create(Job("a"));
  Commit(To(v1::JOB_STATE_RUNNING, Create(Job("b"))));
  Create(Job("c"));
  const auto sequences = store_->LastSequences({"a", "b", "nope"});
  ASSERT_TRUE(sequences.ok()) << sequences.status();
  EXPECT_THAT(*sequences, testing::ElementsAre(testing::Pair("a", 1), testing::Pair("b", 2)));
  EXPECT_THAT(*store_->LastSequences({}), testing::IsEmpty());
}

TEST_P(StoreTestSuite, HasAClock) {
  const auto first = store_->Now();
  ASSERT_TRUE(first.ok()) << first.status();
  // The test's PostgreSQL is on this machine.
  EXPECT_LT(absl::AbsDuration(*first - RealClock().Now()), absl::Minutes(1));
  EXPECT_GE(*store_->Now(), *first);
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

TEST_P(StoreTestSuite, SecretsStay) {
  const std::string fresh("\0key", 4);
  EXPECT_EQ(*store_->GetOrPutSecret("s", fresh), fresh);
  store_ = &harness_->Reopen();
  EXPECT_EQ(*store_->GetOrPutSecret("s", "other"), fresh);
}

}  // namespace latentforge::service
