#include "service/store/postgres_store.h"

#include <atomic>
#include <thread>
#include <vector>

#include "service/store/postgres_schema.h"
#include "tests/service/store/postgres_server.h"
#include "tests/service/store/store_log_suite.h"
#include "tests/service/store/store_test_suite.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

std::unique_ptr<PostgresStore> OpenTestStore(const std::string& uri,
                                             const PostgresOptions& options = {}) {
  auto opened = PostgresStore::Open(uri, options);
  EXPECT_TRUE(opened.ok()) << opened.status();
  return *std::move(opened);
}

class PostgresHarness : public StoreHarness {
 public:
  Store& Reopen() override {
    store_.reset();
    store_ = OpenTestStore(uri_);
    return *store_;
  }

 private:
  const std::string uri_ = PostgresServer::Shared().NewDatabase();
  std::unique_ptr<PostgresStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Postgres, StoreTestSuite, testing::Values(StoreHarnessFactory([] {
                           return std::make_unique<PostgresHarness>();
                         })));
INSTANTIATE_TEST_SUITE_P(Postgres, StoreLogTest, testing::Values(StoreHarnessFactory([] {
                           return std::make_unique<PostgresHarness>();
                         })));

// Before each new row of `table`, the database runs `statements`.
void OnInsert(const std::string& uri, const std::string& table, const std::string& statements) {
  RunSql(uri,
         absl::StrCat("CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ",
                      statements, " RETURN NEW; END $$; CREATE TRIGGER fault BEFORE INSERT ON ",
                      table, " FOR EACH ROW EXECUTE FUNCTION fault()"));
}

NewJob QueuedJob(const std::string& id, const std::string& request_id = "") {
  NewJob job;
  job.record.id = id;
  job.record.tenant = kDefaultTenant;
  job.record.job.mutable_status()->set_state(v1::JOB_STATE_QUEUED);
  job.request_id = request_id;
  return job;
}

class PostgresStoreTest : public testing::Test {
 protected:
  // As a server of version 1 of the schema does.
  void AddByVersion1(const std::string& id, v1::JobState state, int needs_cuda) {
    RunSql(uri_, absl::StrCat("INSERT INTO jobs (id, tenant, job, estimate) VALUES ('", id,
                              "', 'search', '', ''); INSERT INTO job_states (ordinal, version, "
                              "output_path, needs_cuda, state, etag, status, last_sequence, "
                              "update_time, lease_epoch, completed_epoch, counted_attempts, "
                              "attempt_sequence, attempt_start_time, lease_expire_time, "
                              "queue_time, claimable_time, rank_time, progress_event_time, "
                              "progress_event_percent) SELECT max(ordinal), 1, '', ",
                              needs_cuda, ", ", int{state},
                              ", '', '', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM jobs"));
  }

  const std::string uri_ = PostgresServer::Shared().NewDatabase();
};

TEST_F(PostgresStoreTest, ServersThatStartTogetherMigrateOnce) {
  std::vector<std::thread> servers;
  for (int i = 0; i < 6; ++i) servers.emplace_back([this] { OpenTestStore(uri_); });
  for (std::thread& server : servers) server.join();
  EXPECT_EQ(AskSql(uri_, "SELECT count(*) FROM schema_migrations"), CurrentPostgresSchemaVersion());
}

TEST_F(PostgresStoreTest, ADatabaseFromBeforeLogsKeepsItsJobsAndGetsLogs) {
  {
    auto connection = PgConnection::Connect(uri_, MigrationTimeouts());
    ASSERT_TRUE(connection.ok()) << connection.status();
    ASSERT_TRUE(MigratePostgres(*connection, 1).ok());
  }
  RunSql(uri_,
         "INSERT INTO jobs (id, tenant, job, estimate) VALUES ('old', 'search', '', ''); "
         "INSERT INTO job_states SELECT ordinal, 4, '', 0, 2, '', '', 1, 0, NULL, NULL, NULL, "
         "NULL, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0 FROM jobs");
  const std::unique_ptr<PostgresStore> store = OpenTestStore(uri_);
  EXPECT_EQ(store->Get("old")->tenant, "search");
  EXPECT_EQ(store->Get("old")->version, 4);
  const LogAppend append = {.job = "old", .attempt = 1, .lines = {{.sequence = 1, .text = "x"}}};
  ASSERT_TRUE(store->AppendLogs(append).ok());
  EXPECT_EQ(store->Logs({.job = "old", .attempt = 1})->size(), 1u);
}

TEST_F(PostgresStoreTest, ANewerSchemaIsRefused) {
  OpenTestStore(uri_);
  RunSql(uri_, "INSERT INTO schema_migrations VALUES (999, now())");
  const absl::Status status = PostgresStore::Open(uri_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("999"));
}

TEST_F(PostgresStoreTest, AServerOfTheVersionBeforeGoesOnMeanwhile) {
  const auto store = OpenTestStore(uri_);
  AddByVersion1("gpu", v1::JOB_STATE_QUEUED, 1);
  AddByVersion1("cpu", v1::JOB_STATE_QUEUED, 0);
  EXPECT_EQ(store->Get("gpu")->needs, "cuda");
  EXPECT_EQ(store->Get("gpu")->lease_subject, "") << "anybody's";
  EXPECT_EQ(store->Use("search")->queued, 2);
  EXPECT_EQ(store->List({.tenant = "search", .states = {v1::JOB_STATE_QUEUED}})->size(), 2u);
  // How it finds the new server's jobs.
  NewJob job = QueuedJob("new");
  job.record.needs = "cuda:1 4096";
  ASSERT_TRUE(store->Create(job).ok());
  EXPECT_EQ(AskSql(uri_,
                   "SELECT count(tenant) FROM jobs JOIN job_states USING (ordinal) WHERE "
                   "tenant = 'default' AND needs_cuda = 1 AND state = 1 AND output_path = ''"),
            1);
}

TEST_F(PostgresStoreTest, JobsFromBeforeSharesAreClaimedAsBefore) {
  {
    auto connection = PgConnection::Connect(uri_, {});
    ASSERT_TRUE(connection.ok()) << connection.status();
    ASSERT_TRUE(MigratePostgres(*connection, 1).ok());
  }
  AddByVersion1("gpu", v1::JOB_STATE_QUEUED, 1);
  AddByVersion1("cpu", v1::JOB_STATE_QUEUED, 0);
  AddByVersion1("on-gpu", v1::JOB_STATE_RUNNING, 1);
  const auto store = OpenTestStore(uri_);
  EXPECT_EQ(store->Get("gpu")->needs, "cuda");
  EXPECT_EQ(store->Get("cpu")->needs, "");
  EXPECT_EQ(store->Use("search")->queued, 2);
  EXPECT_EQ(store->Use("search")->gpus, 1);
  ClaimQuery query{.now = absl::UnixEpoch()};
  query.worker.add_devices("cpu");
  const auto running = [](const JobRecord& candidate) -> absl::StatusOr<JobUpdate> {
    JobUpdate update{.expected_version = candidate.version, .record = candidate};
    update.record.job.mutable_status()->set_state(v1::JOB_STATE_RUNNING);
    return update;
  };
  EXPECT_EQ((**store->Claim(query, running)).id, "cpu");
  EXPECT_FALSE(store->Claim(query, running)->has_value());
  query.worker.add_devices("cuda:0");
  EXPECT_EQ((**store->Claim(query, running)).id, "gpu");
}

TEST_F(PostgresStoreTest, ParallelSubmitsToTwoServersDoNotPassTheQuota) {
  const std::unique_ptr<PostgresStore> stores[] = {OpenTestStore(uri_), OpenTestStore(uri_)};
  std::vector<absl::Status> answers(20);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < answers.size(); ++i)
    threads.emplace_back([&, i] {
      NewJob job = QueuedJob(absl::StrCat("j", i));
      job.limits.jobs = 7;
      answers[i] = stores[i % 2]->Create(job).status();
    });
  for (std::thread& thread : threads) thread.join();
  int made = 0;
  for (const absl::Status& answer : answers) {
    made += answer.ok();
    EXPECT_TRUE(answer.ok() || ReasonOf(answer) == kQuotaQueuedJobs) << answer;
  }
  EXPECT_EQ(made, 7);
  EXPECT_EQ(stores[0]->Use(kDefaultTenant)->queued, 7);
}

TEST_F(PostgresStoreTest, ParallelClaimsOfTwoServersDoNotPassTheLimit) {
  const std::unique_ptr<PostgresStore> stores[] = {OpenTestStore(uri_), OpenTestStore(uri_)};
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(stores[0]->Create(QueuedJob(absl::StrCat("j", i))).ok());
  ClaimQuery query{.now = absl::UnixEpoch()};
  query.tenants = Tenants(R"({"*": {"max_running_jobs": 5}})");
  std::atomic<int> claimed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 12; ++i)
    threads.emplace_back([&, i] {
      const auto next = stores[i % 2]->Claim(query, [](const JobRecord& candidate) {
        JobUpdate update{.expected_version = candidate.version, .record = candidate};
        update.record.job.mutable_status()->set_state(v1::JOB_STATE_RUNNING);
        return absl::StatusOr<JobUpdate>(update);
      });
      ASSERT_TRUE(next.ok()) << next.status();
      claimed += next->has_value();
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(claimed, 5);
}

TEST_F(PostgresStoreTest, ARoleThatOwnsNothingNeedsTheDocumentedGrants) {
  OpenTestStore(uri_);
  const std::string uri = PostgresServer::WithRole(uri_, "server");
  RunSql(uri_, "CREATE ROLE server LOGIN");
  const absl::Status refused = PostgresStore::Open(uri).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied) << refused;
  RunSql(uri_, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO server");
  EXPECT_TRUE(OpenTestStore(uri)->Create(QueuedJob("a")).ok());
  RunSql(uri_, "DROP OWNED BY server; DROP ROLE server");
}

// Every job is claimed once, whichever server asks and however many at once.
TEST_F(PostgresStoreTest, AClaimIsGivenOnceByTwoServers) {
  constexpr int kJobs = 40;
  const std::unique_ptr<PostgresStore> stores[] = {OpenTestStore(uri_), OpenTestStore(uri_)};
  for (int i = 0; i < kJobs; ++i)
    ASSERT_TRUE(stores[0]->Create(QueuedJob(absl::StrCat("j", i))).ok());
  std::vector<std::vector<std::string>> claimed(8);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < claimed.size(); ++t) {
    threads.emplace_back([&, t] {
      PostgresStore& store = *stores[t % 2];
      while (true) {
        const auto next = store.Claim({.now = absl::UnixEpoch()}, [](const JobRecord& candidate) {
          JobUpdate update{.expected_version = candidate.version, .record = candidate};
          update.record.job.mutable_status()->set_state(v1::JOB_STATE_RUNNING);
          update.attempt = {.number = 1};
          return update;
        });
        ASSERT_TRUE(next.ok()) << next.status();
        if (!next->has_value()) return;
        claimed[t].push_back((*next)->id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<std::string> all;
  for (const auto& ids : claimed) all.insert(all.end(), ids.begin(), ids.end());
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all.size(), static_cast<size_t>(kJobs));
  EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
}

TEST_F(PostgresStoreTest, OneOfManyEqualRequestsOnTwoServersMakesTheJob) {
  const std::unique_ptr<PostgresStore> stores[] = {OpenTestStore(uri_), OpenTestStore(uri_)};
  std::vector<absl::Status> answers(10);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < answers.size(); ++i)
    threads.emplace_back([&, i] {
      answers[i] = stores[i % 2]->Create(QueuedJob(absl::StrCat("j", i), "r")).status();
    });
  for (std::thread& thread : threads) thread.join();
  int made = 0;
  for (const absl::Status& answer : answers) {
    made += answer.ok();
    EXPECT_TRUE(answer.ok() || ReasonOf(answer) == kRequestIdReused) << answer;
  }
  EXPECT_EQ(made, 1);
  EXPECT_EQ(stores[0]->List({})->size(), 1u);
}

TEST_F(PostgresStoreTest, AFullDiskIsResourceExhausted) {
  const auto store = OpenTestStore(uri_);
  OnInsert(uri_, "jobs", "RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full';");
  const absl::Status status = store->Create(QueuedJob("a")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ReasonOf(status), "STORE_FULL");
}

TEST_F(PostgresStoreTest, ATransactionThatLostADeadlockIsRepeated) {
  const auto store = OpenTestStore(uri_);
  // A rollback does not take back a sequence: two failures, then success.
  RunSql(uri_, "CREATE SEQUENCE tries");
  OnInsert(uri_, "jobs",
           "IF nextval('tries') < 3 THEN RAISE EXCEPTION USING ERRCODE = 'deadlock_detected'; "
           "END IF;");
  EXPECT_TRUE(store->Create(QueuedJob("a")).ok());
  EXPECT_EQ(AskSql(uri_, "SELECT last_value FROM tries"), 3);
  RunSql(uri_, "ALTER SEQUENCE tries MINVALUE -100 RESTART WITH -100");
  const absl::Status status = store->Create(QueuedJob("b")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(ReasonOf(status), "STORE_BUSY");
}

TEST_F(PostgresStoreTest, WhatTakesTooLongIsUnavailable) {
  const auto store = OpenTestStore(
      uri_, {.timeouts = {.statement = absl::Milliseconds(300), .lock = absl::Milliseconds(50)}});
  const auto created = store->Create(QueuedJob("a"));
  ASSERT_TRUE(created.ok()) << created.status();
  {
    auto other = PgConnection::Connect(uri_, {});
    ASSERT_TRUE(other.ok() && other->Execute("BEGIN; SELECT * FROM job_states FOR UPDATE").ok());
    const absl::Status locked = store->Commit({.expected_version = 1, .record = *created}).status();
    EXPECT_EQ(locked.code(), absl::StatusCode::kUnavailable) << locked;
    EXPECT_EQ(ReasonOf(locked), "STORE_BUSY");
  }
  OnInsert(uri_, "jobs", "PERFORM pg_sleep(10);");
  const absl::Status slow = store->Create(QueuedJob("b")).status();
  EXPECT_EQ(slow.code(), absl::StatusCode::kUnavailable) << slow;
  EXPECT_EQ(ReasonOf(slow), "STORE_DOWN");
}

TEST_F(PostgresStoreTest, ACommitWithoutAnAnswerMayBeRepeatedWithItsRequestId) {
  const auto store = OpenTestStore(uri_);
  // The database drops the connection within COMMIT, once.
  RunSql(uri_,
         "CREATE SEQUENCE tries; CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ "
         "BEGIN IF nextval('tries') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); "
         "END IF; RETURN NEW; END $$; CREATE CONSTRAINT TRIGGER fault AFTER INSERT ON jobs "
         "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fault()");
  const absl::Status lost = store->Create(QueuedJob("a", "r")).status();
  EXPECT_EQ(lost.code(), absl::StatusCode::kUnavailable) << lost;
  EXPECT_EQ(ReasonOf(lost), "STORE_DOWN");
  EXPECT_THAT(std::string(lost.message()), HasSubstr("outcome of the commit is unknown"));
  EXPECT_TRUE(store->Create(QueuedJob("b", "r")).ok());
  EXPECT_EQ(store->List({})->size(), 1u);
}

TEST_F(PostgresStoreTest, AHeartbeatTouchesNoIndex) {
  const auto store = OpenTestStore(uri_);
  JobRecord record = *store->Create(QueuedJob("a"));
  record.job.mutable_status()->set_state(v1::JOB_STATE_RUNNING);
  record = *store->Commit({.expected_version = 1, .record = record});
  for (int i = 0; i < 20; ++i) {
    record.lease_expire_time += absl::Seconds(1);
    const auto beat = store->Commit({.expected_version = record.version, .record = record});
    ASSERT_TRUE(beat.ok()) << beat.status();
    record = *beat;
  }
  // Of 21 updates all but the change of state.
  RunSql(uri_, "SELECT pg_stat_force_next_flush()");
  absl::Duration deadline = RealClock().Monotonic() + absl::Seconds(20);
  int64_t hot = 0;
  while (hot < 20 && RealClock().Monotonic() < deadline) {
    hot =
        AskSql(uri_, "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'job_states'");
    RealClock().SleepFor(absl::Milliseconds(100));  // until the session tells its statistics
    ASSERT_TRUE(store->Now().ok());
  }
  EXPECT_EQ(hot, 20);
}

}  // namespace
}  // namespace latentforge::service
