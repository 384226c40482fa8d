#include "service/store/sqlite_store.h"

#include <fstream>

#include "service/store/sqlite_schema.h"
#include "tests/service/store/store_log_suite.h"
#include "tests/service/store/store_test_suite.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

class SqliteHarness : public StoreHarness {
 public:
  Store& Reopen() override {
    store_.reset();
    auto opened = SqliteStore::Open(dir_.path() / "jobs.db");
    EXPECT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    return *store_;
  }

 private:
  TempDir dir_;
  std::unique_ptr<SqliteStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Sqlite, StoreTestSuite, testing::Values(StoreHarnessFactory([] {
                           return std::make_unique<SqliteHarness>();
                         })));
INSTANTIATE_TEST_SUITE_P(Sqlite, StoreLogTest, testing::Values(StoreHarnessFactory([] {
                           return std::make_unique<SqliteHarness>();
                         })));

NewJob BigJob(int number) {
  NewJob job;
  job.record.id = absl::StrCat("j", number);
  job.record.job.mutable_spec()->mutable_source()->set_uri(std::string(20'000, 'x'));
  job.record.job.mutable_status()->set_state(v1::JOB_STATE_QUEUED);
  return job;
}

TEST(SqliteStoreTest, ASecondServerOnOneFileIsRefused) {
  TempDir dir;
  const auto first = SqliteStore::Open(dir.path() / "jobs.db");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = SqliteStore::Open(dir.path() / "jobs.db");
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              testing::AllOf(testing::HasSubstr("jobs.db"),
                             testing::HasSubstr("locked by another process")));
}

TEST(SqliteStoreTest, AFullDiskIsResourceExhaustedAndTheStoreGoesOn) {
  TempDir dir;
  auto store = SqliteStore::Open(dir.path() / "jobs.db", {.max_bytes = 400'000});
  ASSERT_TRUE(store.ok()) << store.status();
  absl::Status status;
  int stored = 0;
  while (stored < 100 && (status = (*store)->Create(BigJob(stored)).status()).ok()) ++stored;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ReasonOf(status), "STORE_FULL");
  ASSERT_GT(stored, 0);
  EXPECT_EQ((*store)->List({.limit = 1000})->size(), static_cast<size_t>(stored));
  ASSERT_TRUE((*store)->Delete({"j0", 1, absl::UnixEpoch()}).ok());
  EXPECT_TRUE((*store)->Create(BigJob(1000)).ok());
}

// A database as version 1 of the schema left it, with a running job that failed once.
void WriteVersion1(const std::filesystem::path& path) {
  auto db = Database::Open(path, Database::Mode::kReadWrite);
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(Migrate(*db, absl::UnixEpoch(), 1).ok());
  v1::Job job;
  job.set_name("jobs/a");
  job.mutable_spec()->mutable_output()->set_uri("file:///out");
  v1::JobStatus status;
  status.set_state(v1::JOB_STATE_RUNNING);
  status.set_attempt(2);
  auto insert = db->Prepare(
      "INSERT INTO jobs VALUES (5, 'a', 9, 2, ?, ?, x'', '/out', 0, 4, 100, NULL, 9000000, 2, 1, "
      "2, "
      "3, "
      "200, 300, 50, 60, 70, 12.5)");
  ASSERT_TRUE(insert.ok()) << insert.status();
  insert->BindBlob(job.SerializeAsString()).BindBlob(status.SerializeAsString());
  ASSERT_TRUE(insert->Run().ok());
  ASSERT_TRUE(db->Execute("INSERT INTO job_labels VALUES (5, 'team', 'x');"
                          "INSERT INTO events VALUES (5, 1, x'0801');"
                          "INSERT INTO attempts VALUES (5, 1, 1, 'w', 10, 20, 2, 'DISK_FULL');"
                          "INSERT INTO attempts VALUES (5, 2, 2, 'w', 200, 0, 0, '');"
                          "INSERT INTO requests VALUES ('r', 5, 'digest');"
                          "INSERT INTO secrets VALUES ('page_token_key', x'0102')")
                  .ok());
}

TEST(SqliteStoreTest, ADatabaseOfVersion1KeepsItsJobs) {
  TempDir dir;
  WriteVersion1(dir.path() / "jobs.db");
  auto opened = SqliteStore::Open(dir.path() / "jobs.db");
  ASSERT_TRUE(opened.ok()) << opened.status();
  SqliteStore& store = **opened;
  auto job = store.Get("a");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->job.status().state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(job->job.spec().output().uri(), "file:///out");
  EXPECT_EQ(job->job.last_sequence(), 4);
  EXPECT_EQ(job->version, 9);
  EXPECT_EQ(job->counted_attempts, 2);
  EXPECT_EQ(job->lease_subject, "") << "anybody's";
  EXPECT_EQ(job->progress_event_percent, 12.5);
  EXPECT_EQ(job->job.etag(), "\"4\"");
  EXPECT_EQ(store.List({.labels = {{"team", "x"}}})->size(), 1u);
  EXPECT_EQ(store.Events("a", 0, 10)->size(), 1u);
  EXPECT_EQ(store.LeasesEndingBy(absl::InfiniteFuture())->size(), 1u);
  EXPECT_EQ(store.DeadlinesBy(absl::FromUnixSeconds(9))->size(), 1u);
  EXPECT_EQ(store.FindRequest(kDefaultTenant, "r")->value().job_id, "a");
  EXPECT_EQ(*store.GetOrPutSecret("page_token_key", "new"), "\x01\x02");
  const auto attempts = store.Attempts("a", 0, 10);
  ASSERT_TRUE(attempts.ok()) << attempts.status();
  ASSERT_EQ(attempts->size(), 2u);
  EXPECT_EQ((*attempts)[0].error.reason(), "DISK_FULL");
  EXPECT_EQ((*attempts)[0].outcome, AttemptOutcome::kFailed);
  EXPECT_EQ((*attempts)[1].error.reason(), "");
  // And it can go on from here.
  JobUpdate update;
  update.expected_version = job->version;
  update.record = *job;
  update.record.job.mutable_status()->set_state(v1::JOB_STATE_PAUSING);
  update.attempt = (*attempts)[1];
  EXPECT_TRUE(store.Commit(update).ok());
}

TEST(SqliteStoreTest, ANewerSchemaIsRefused) {
  TempDir dir;
  { ASSERT_TRUE(SqliteStore::Open(dir.path() / "jobs.db").ok()); }
  {
    auto db = Database::Open(dir.path() / "jobs.db", Database::Mode::kReadWrite);
    ASSERT_TRUE(db.ok());
    ASSERT_TRUE(db->Execute("INSERT INTO schema_migrations VALUES (999, 0)").ok());
  }
  const absl::Status status = SqliteStore::Open(dir.path() / "jobs.db").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("999"));
}

TEST(SqliteStoreTest, JobsFromBeforeTenantsBelongToTheDefaultOne) {
  TempDir dir;
  {
    auto db = Database::Open(dir.path() / "jobs.db", Database::Mode::kReadWrite);
    ASSERT_TRUE(db.ok()) << db.status();
    ASSERT_TRUE(Migrate(*db, absl::Now(), 1).ok());
    const absl::Status inserted = db->Execute(
        "INSERT INTO jobs VALUES (7, 'old', 1, 1, x'', x'', x'', '', 0, 1, 0, NULL, NULL, 0, 0, 0, "
        "0, 0, 0, 0, 0, 0, 0); INSERT INTO requests VALUES ('r1', 7, 'digest')");
    ASSERT_TRUE(inserted.ok()) << inserted;
  }
  const auto store = SqliteStore::Open(dir.path() / "jobs.db");
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->Get("old")->tenant, kDefaultTenant);
  EXPECT_EQ((*store)->Get("old")->job.tenant(), kDefaultTenant);
  EXPECT_EQ((**(*store)->FindRequest(kDefaultTenant, "r1")).job_id, "old");
  // Its tombstone is that tenant's too.
  ASSERT_TRUE((*store)->Delete({"old", 1, absl::UnixEpoch()}).ok());
  EXPECT_TRUE((*store)->FindRequest(kDefaultTenant, "r1")->value().deleted);
  EXPECT_FALSE((*store)->FindRequest("search", "r1")->has_value());
}

TEST(SqliteStoreTest, JobsFromBeforeSharesAreClaimedAsBefore) {
  TempDir dir;
  {
    auto db = Database::Open(dir.path() / "jobs.db", Database::Mode::kReadWrite);
    ASSERT_TRUE(db.ok()) << db.status();
    ASSERT_TRUE(Migrate(*db, absl::Now(), 3).ok());
    for (const std::string job : {"(1, 'gpu', 1, 1)", "(2, 'cpu', 1, 0)", "(3, 'on-gpu', 2, 1)"}) {
      const absl::Status inserted = db->Execute(
          "INSERT INTO jobs (ordinal, id, state, needs_cuda, version, job, status, estimate, "
          "output_path, last_sequence, update_time, lease_epoch, completed_epoch, "
          "counted_attempts, attempt_sequence, attempt_start_time, lease_expire_time, queue_time, "
          "claimable_time, progress_event_time, progress_event_percent, tenant) SELECT *, 1, x'', "
          "x'', x'', '', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'search' FROM (VALUES " +
          job + ")");
      ASSERT_TRUE(inserted.ok()) << inserted;
    }
  }
  const auto store = SqliteStore::Open(dir.path() / "jobs.db");
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->Get("gpu")->needs, "cuda");
  EXPECT_EQ((*store)->Get("cpu")->needs, "");
  EXPECT_EQ((*store)->Use("search")->queued, 2);
  EXPECT_EQ((*store)->Use("search")->gpus, 1);
  ClaimQuery query{.now = absl::UnixEpoch()};
  query.worker.add_devices("cpu");
  const auto running = [](const JobRecord& candidate) -> absl::StatusOr<JobUpdate> {
    JobUpdate update{.expected_version = candidate.version, .record = candidate};
    update.record.job.mutable_status()->set_state(v1::JOB_STATE_RUNNING);
    return update;
  };
  EXPECT_EQ((**(*store)->Claim(query, running)).id, "cpu");
  EXPECT_FALSE((*store)->Claim(query, running)->has_value());
  query.worker.add_devices("cuda:0");
  EXPECT_EQ((**(*store)->Claim(query, running)).id, "gpu");
}

TEST(SqliteStoreTest, ADatabaseFromBeforeLogsKeepsItsJobsAndGetsLogs) {
  TempDir dir;
  {
    auto db = Database::Open(dir.path() / "jobs.db", Database::Mode::kReadWrite);
    ASSERT_TRUE(db.ok()) << db.status();
    ASSERT_TRUE(Migrate(*db, absl::Now(), 3).ok());
    const absl::Status inserted = db->Execute(
        "INSERT INTO jobs (id, version, state, job, status, estimate, output_path, needs_cuda, "
        "last_sequence, update_time, lease_epoch, completed_epoch, counted_attempts, "
        "attempt_sequence, attempt_start_time, lease_expire_time, queue_time, claimable_time, "
        "progress_event_time, progress_event_percent, tenant) "
        "VALUES ('old', 4, 2, x'', x'', x'', '', 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'search')");
    ASSERT_TRUE(inserted.ok()) << inserted;
  }
  const auto store = SqliteStore::Open(dir.path() / "jobs.db");
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->Get("old")->tenant, "search");
  EXPECT_EQ((*store)->Get("old")->version, 4);
  const LogAppend append = {.job = "old", .attempt = 1, .lines = {{.sequence = 1, .text = "x"}}};
  ASSERT_TRUE((*store)->AppendLogs(append).ok());
  EXPECT_EQ((*store)->Logs({.job = "old", .attempt = 1})->size(), 1u);
}

TEST(SqliteStoreTest, AFileThatIsNoDatabaseIsDataLoss) {
  TempDir dir;
  std::ofstream(dir.path() / "jobs.db") << std::string(8192, 'z');
  EXPECT_EQ(SqliteStore::Open(dir.path() / "jobs.db").status().code(), absl::StatusCode::kDataLoss);
}

TEST(SqliteStoreTest, AMissingFolderIsNamed) {
  const absl::Status status = SqliteStore::Open("/nonexistent/folder/jobs.db").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("/nonexistent/folder"));
}

TEST(SqliteStoreTest, TheJournalIsWrittenAhead) {
  TempDir dir;
  auto store = SqliteStore::Open(dir.path() / "jobs.db");
  ASSERT_TRUE(store.ok());
  auto db = Database::Open(dir.path() / "jobs.db", Database::Mode::kReadOnly);
  ASSERT_TRUE(db.ok());
  auto mode = db->Prepare("PRAGMA journal_mode");
  ASSERT_TRUE(mode.ok() && *mode->Step());
  EXPECT_EQ(mode->Text(), "wal");
}

}  // namespace
}  // namespace latentforge::service
