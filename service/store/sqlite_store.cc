#include "service/store/sqlite_store.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/store/sqlite_claim.h"
#include "service/store/sqlite_events.h"
#include "service/store/sqlite_list.h"
#include "service/store/sqlite_logs.h"
#include "service/store/sqlite_rows.h"
#include "service/store/sqlite_schema.h"
#include "service/store/sqlite_writes.h"
#include "service/store/state_sets.h"

namespace latentforge::service {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kMaxMicros = std::numeric_limits<int64_t>::max();

absl::Status Configure(Database& db, const SqliteOptions& options) {
  LF_RETURN_IF_ERROR(db.Execute(absl::StrCat("PRAGMA page_size = ", kPageBytes)));
  LF_RETURN_IF_ERROR(db.Execute("PRAGMA journal_mode = WAL"));
  LF_RETURN_IF_ERROR(db.Execute("PRAGMA synchronous = FULL"));
  LF_RETURN_IF_ERROR(db.Execute("PRAGMA foreign_keys = ON"));
  if (options.max_bytes <= 0) return absl::OkStatus();
  return db.Execute(absl::StrCat("PRAGMA max_page_count = ",
                                 std::max<int64_t>(1, options.max_bytes / kPageBytes)));
}

absl::StatusOr<JobRecord> ReadById(Database& db, absl::string_view id) {
  LF_ASSIGN_OR_RETURN(Statement query, db.Prepare(SelectJobs() + "WHERE id = ?"));
  LF_ASSIGN_OR_RETURN(std::vector<JobRecord> found, ReadJobs(query.BindText(id)));
  if (found.empty()) return JobNotFoundError(id);
  return std::move(found.front());
}

struct Connections {
  Database writer;
  Database reader;
};

absl::StatusOr<Connections> Connect(const std::filesystem::path& path, const SqliteOptions& options,
                                    absl::Time now) {
  LF_ASSIGN_OR_RETURN(Database writer, Database::Open(path, Database::Mode::kReadWrite));
  LF_RETURN_IF_ERROR(Annotate(Configure(writer, options), path.string()));
  LF_RETURN_IF_ERROR(Annotate(Migrate(writer, now), path.string()));
  LF_ASSIGN_OR_RETURN(Database reader, Database::Open(path, Database::Mode::kReadOnly));
  return Connections{std::move(writer), std::move(reader)};
}

// Of a start that failed, under its lock.
void RemoveDatabase(const std::filesystem::path& path) {
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::error_code ignored;
    std::filesystem::remove(path.string() + suffix, ignored);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(const std::filesystem::path& path,
                                                               const SqliteOptions& options,
                                                               const Clock& clock) {
  std::filesystem::path lock_path = path;
  lock_path += ".lock";
  auto lock = FileLock::Acquire(lock_path);
  if (!lock.ok()) {
    return Annotate(lock.status(),
                    absl::StrCat("database ", path.string(), " cannot be opened by this server"));
  }
  std::error_code error;
  const bool database_is_new = !std::filesystem::exists(path, error);
  auto connections = Connect(path, options, clock.Now());
  if (!connections.ok()) {
    if (database_is_new) RemoveDatabase(path);
    if (lock->made()) lock->RemoveFile();
    return connections.status();
  }
  return std::unique_ptr<SqliteStore>(new SqliteStore(
      clock, *std::move(lock), std::move(connections->writer), std::move(connections->reader)));
}

absl::StatusOr<JobRecord> SqliteStore::Create(const NewJob& job) {
  JobRecord created = job.record;
  created.version = 1;
  LF_RETURN_IF_ERROR(writes_.Run([&](Database& db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(created.ordinal, sqlite::WriteJob(db, job));
    return absl::OkStatus();
  }));
  return created;
}

absl::StatusOr<JobRecord> SqliteStore::Get(absl::string_view id) {
  absl::MutexLock lock(&read_mutex_);
  return ReadById(reader_, id);
}

absl::StatusOr<std::optional<StoredRequest>> SqliteStore::FindRequest(
    absl::string_view tenant, absl::string_view request_id) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(
      Statement query,
      reader_.Prepare("SELECT jobs.id, requests.digest, 0 FROM requests JOIN jobs USING (ordinal) "
                      "WHERE requests.tenant = ?1 AND request_id = ?2 UNION ALL "
                      "SELECT job_id, digest, 1 FROM tombstones "
                      "WHERE tenant = ?1 AND request_id = ?2"));
  LF_ASSIGN_OR_RETURN(const bool found, query.BindText(tenant).BindText(request_id).Step());
  if (!found) return std::nullopt;
  StoredRequest request;
  request.job_id = query.Text();
  request.digest = query.Text();
  request.deleted = query.Int() != 0;
  return request;
}

absl::StatusOr<std::vector<JobRecord>> SqliteStore::List(const JobQuery& query) {
  absl::MutexLock lock(&read_mutex_);
  return sqlite::ListJobs(reader_, query);
}

absl::StatusOr<JobRecord> SqliteStore::Commit(const JobUpdate& update) {
  JobRecord committed;
  LF_RETURN_IF_ERROR(writes_.Run([&](Database& db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(committed, sqlite::WriteUpdate(db, update));
    return absl::OkStatus();
  }));
  return committed;
}

absl::StatusOr<std::optional<JobRecord>> SqliteStore::Claim(const ClaimQuery& query,
                                                            const DecideClaim& decide) {
  std::optional<JobRecord> claimed;
  LF_RETURN_IF_ERROR(writes_.Run([&](Database& db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(claimed, sqlite::ClaimNext(db, query, decide));
    return absl::OkStatus();
  }));
  return claimed;
}

absl::StatusOr<std::vector<JobRecord>> SqliteStore::LeasesEndingBy(absl::Time time) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(Statement query,
                      reader_.Prepare(absl::StrCat(SelectJobs(), "WHERE ", kHoldsLease,
                                                   " AND lease_expire_time <= ?")));
  return ReadJobs(
      query.Bind(time == absl::InfiniteFuture() ? kMaxMicros : absl::ToUnixMicros(time)));
}

absl::StatusOr<std::vector<JobRecord>> SqliteStore::DeadlinesBy(absl::Time time) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(
      Statement query,
      reader_.Prepare(SelectJobs() + "WHERE due_time IS NOT NULL AND due_time <= ?"));
  return ReadJobs(query.Bind(time));
}

absl::StatusOr<std::vector<v1::JobEvent>> SqliteStore::Events(absl::string_view id, int64_t after,
                                                              int limit) {
  absl::MutexLock lock(&read_mutex_);
  return ReadEvents(reader_, id, after, limit);
}

absl::Status SqliteStore::CompactEvents(const EventCompaction& compaction) {
  return writes_.Run([&](Database& db) { return RemoveEvents(db, compaction); });
}

absl::StatusOr<int64_t> SqliteStore::CompactedThrough(absl::string_view id) {
  absl::MutexLock lock(&read_mutex_);
  return ReadCompactedThrough(reader_, id);
}

absl::StatusOr<std::vector<EventSpan>> SqliteStore::LongHistories(int64_t events, int limit) {
  absl::MutexLock lock(&read_mutex_);
  return ReadLongHistories(reader_, events, limit);
}

absl::StatusOr<std::map<std::string, int64_t>> SqliteStore::LastSequences(
    const std::vector<std::string>& ids) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(Statement query,
                      reader_.Prepare("SELECT last_sequence FROM jobs WHERE id = ?"));
  std::map<std::string, int64_t> sequences;
  for (const std::string& id : ids) {
    query.Reset();
    LF_ASSIGN_OR_RETURN(const bool found, query.BindText(id).Step());
    if (found) sequences[id] = query.Int();
  }
  return sequences;
}

absl::StatusOr<std::vector<AttemptRecord>> SqliteStore::Attempts(absl::string_view id,
                                                                 int32_t after, int limit) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(reader_, id));
  LF_ASSIGN_OR_RETURN(Statement query,
                      reader_.Prepare(SelectAttempts() + "WHERE ordinal = ? AND number > ? "
                                                         "ORDER BY number LIMIT ?"));
  query.Bind(ordinal).Bind(int64_t{after}).Bind(int64_t{limit});
  std::vector<AttemptRecord> attempts;
  while (true) {
    LF_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return attempts;
    LF_ASSIGN_OR_RETURN(attempts.emplace_back(), ReadAttempt(query));
  }
}

absl::StatusOr<LogAppended> SqliteStore::AppendLogs(const LogAppend& append) {
  LogAppended appended;
  LF_RETURN_IF_ERROR(writes_.Run([&](Database& db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(appended, WriteLogs(db, append));
    return absl::OkStatus();
  }));
  return appended;
}

absl::StatusOr<std::vector<LogRecord>> SqliteStore::Logs(const LogQuery& query) {
  absl::MutexLock lock(&read_mutex_);
  return ReadLogs(reader_, query);
}

absl::StatusOr<int64_t> SqliteStore::LogTail(absl::string_view id, int32_t attempt, int lines) {
  absl::MutexLock lock(&read_mutex_);
  return FindLogTail(reader_, id, attempt, lines);
}

absl::Status SqliteStore::Delete(const JobDeletion& deletion) {
  return writes_.Run([&](Database& db) { return sqlite::WriteDeletion(db, deletion); });
}

absl::StatusOr<std::vector<JobRecord>> SqliteStore::ExpiredBy(absl::Time time, int limit) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(
      Statement query,
      reader_.Prepare(SelectJobs() + "WHERE expire_time IS NOT NULL AND expire_time <= ? "
                                     "ORDER BY expire_time LIMIT ?"));
  return ReadJobs(query.Bind(time).Bind(int64_t{limit}));
}

absl::Status SqliteStore::PurgeTombstones(absl::Time time, int limit) {
  return writes_.Run([&](Database& db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement purge,
        db.Prepare("DELETE FROM tombstones WHERE (tenant, request_id) IN (SELECT tenant, "
                   "request_id FROM tombstones WHERE delete_time <= ? "
                   "ORDER BY delete_time LIMIT ?)"));
    return purge.Bind(time).Bind(int64_t{limit}).Run();
  });
}

absl::StatusOr<StoreStats> SqliteStore::Stats() {
  absl::MutexLock lock(&read_mutex_);
  StoreStats stats;
  LF_ASSIGN_OR_RETURN(Statement counts,
                      reader_.Prepare("SELECT state, count(*) FROM jobs GROUP BY state"));
  while (true) {
    LF_ASSIGN_OR_RETURN(const bool row, counts.Step());
    if (!row) break;
    const auto state = static_cast<v1::JobState>(counts.Int());
    stats.jobs[state] = counts.Int();
  }
  LF_ASSIGN_OR_RETURN(Statement oldest, reader_.Prepare(absl::StrCat(
                                            "SELECT min(queue_time) FROM jobs WHERE ", kIsQueued)));
  LF_RETURN_IF_ERROR(oldest.Step().status());
  if (!oldest.NextIsNull()) stats.oldest_queue_time = oldest.Time();
  return stats;
}

absl::StatusOr<TenantUse> SqliteStore::Use(absl::string_view tenant) {
  absl::MutexLock lock(&read_mutex_);
  return sqlite::ReadUse(reader_, tenant);
}

absl::StatusOr<std::vector<std::string>> SqliteStore::WaitingNeeds(absl::string_view tenant) {
  absl::MutexLock lock(&read_mutex_);
  return sqlite::ReadWaitingNeeds(reader_, tenant);
}

absl::StatusOr<std::string> SqliteStore::GetOrPutSecret(absl::string_view name,
                                                        absl::string_view fresh) {
  std::string kept;
  LF_RETURN_IF_ERROR(writes_.Run([&](Database& db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement put, db.Prepare("INSERT OR IGNORE INTO secrets VALUES (?, ?)"));
    LF_RETURN_IF_ERROR(put.BindText(name).BindBlob(fresh).Run());
    LF_ASSIGN_OR_RETURN(Statement get, db.Prepare("SELECT value FROM secrets WHERE name = ?"));
    LF_RETURN_IF_ERROR(get.BindText(name).Step().status());
    kept = get.Blob();
    return absl::OkStatus();
  }));
  return kept;
}

}  // namespace latentforge::service
