// The store of a single server: one SQLite file.
#pragma once

#include <filesystem>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/file_lock.h"
#include "service/store/group_commit.h"
#include "service/store/sqlite_db.h"
#include "service/store/store.h"

namespace latentforge::service {

struct SqliteOptions {
  int64_t max_bytes = 0;  // of the file; 0 means no limit of ours
};

// Durability: WAL with synchronous=FULL. NORMAL would survive the death of the
// process but may lose the last commits in a power cut, and an acknowledged job
// must survive that too; the price is one fsync for all that is written at a time.
// Safe for concurrent use: writes share one connection and reads another, so that
// a read never waits for an fsync.
class SqliteStore final : public Store {
 public:
  // Opens or creates `path` and brings it to the current schema. The store is this
  // process's alone: FailedPrecondition when another process has it open. The
  // folder must exist. Borrows the clock.
  static absl::StatusOr<std::unique_ptr<SqliteStore>> Open(const std::filesystem::path& path,
                                                           const SqliteOptions& options = {},
                                                           const Clock& clock = RealClock());

  bool shared() const override { return false; }
  absl::StatusOr<absl::Time> Now() override { return clock_.Now(); }

  absl::StatusOr<JobRecord> Create(const NewJob& job) override;
  absl::StatusOr<JobRecord> Get(absl::string_view id) override;
  absl::StatusOr<std::optional<StoredRequest>> FindRequest(absl::string_view tenant,
                                                           absl::string_view request_id) override;
  absl::StatusOr<std::vector<JobRecord>> List(const JobQuery& query) override;
  absl::StatusOr<JobRecord> Commit(const JobUpdate& update) override;
  absl::StatusOr<std::optional<JobRecord>> Claim(const ClaimQuery& query,
                                                 const DecideClaim& decide) override;
  absl::StatusOr<std::vector<JobRecord>> LeasesEndingBy(absl::Time time) override;
  absl::StatusOr<std::vector<JobRecord>> DeadlinesBy(absl::Time time) override;
  absl::StatusOr<std::vector<v1::JobEvent>> Events(absl::string_view id, int64_t after,
                                                   int limit) override;
  absl::Status CompactEvents(const EventCompaction& compaction) override;
  absl::StatusOr<int64_t> CompactedThrough(absl::string_view id) override;
  absl::StatusOr<std::vector<EventSpan>> LongHistories(int64_t events, int limit) override;
  absl::StatusOr<std::map<std::string, int64_t>> LastSequences(
      const std::vector<std::string>& ids) override;
  absl::StatusOr<std::vector<AttemptRecord>> Attempts(absl::string_view id, int32_t after,
                                                      int limit) override;
  absl::StatusOr<LogAppended> AppendLogs(const LogAppend& append) override;
  absl::StatusOr<std::vector<LogRecord>> Logs(const LogQuery& query) override;
  absl::StatusOr<int64_t> LogTail(absl::string_view id, int32_t attempt, int lines) override;
  absl::Status Delete(const JobDeletion& deletion) override;
  absl::StatusOr<std::vector<JobRecord>> ExpiredBy(absl::Time time, int limit) override;
  absl::Status PurgeTombstones(absl::Time time, int limit) override;
  absl::StatusOr<StoreStats> Stats() override;
  absl::StatusOr<TenantUse> Use(absl::string_view tenant) override;
  absl::StatusOr<std::vector<std::string>> WaitingNeeds(absl::string_view tenant) override;
  absl::StatusOr<std::string> GetOrPutSecret(absl::string_view name,
                                             absl::string_view fresh) override;

 private:
  SqliteStore(const Clock& clock, FileLock lock, Database writer, Database reader)
      : clock_(clock),
        lock_(std::move(lock)),
        writes_(std::move(writer)),
        reader_(std::move(reader)) {}

  const Clock& clock_;
  const FileLock lock_;
  GroupCommit writes_;
  absl::Mutex read_mutex_;
  Database reader_ ABSL_GUARDED_BY(read_mutex_);
};

}  // namespace latentforge::service
