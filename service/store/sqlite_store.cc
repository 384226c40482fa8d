#include "service/store/sqlite_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "service/store/sqlite_events.h"
#include "service/store/sqlite_logs.h"
#include "service/store/sqlite_rows.h"
#include "service/store/sqlite_schema.h"
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

absl::StatusOr<std::vector<JobRecord>> ReadJobs(Statement& query) {
  std::vector<JobRecord> records;
  while (true) {
    LF_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return records;
    LF_ASSIGN_OR_RETURN(records.emplace_back(), ReadJob(query));
  }
}

absl::StatusOr<JobRecord> ReadById(Database& db, absl::string_view id) {
  LF_ASSIGN_OR_RETURN(Statement query, db.Prepare(SelectJobs() + "WHERE id = ?"));
  LF_ASSIGN_OR_RETURN(std::vector<JobRecord> found, ReadJobs(query.BindText(id)));
  if (found.empty()) return JobNotFoundError(id);
  return std::move(found.front());
}

absl::Status PutAttempt(Database& db, int64_t ordinal, const AttemptRecord& attempt) {
  LF_ASSIGN_OR_RETURN(Statement put, db.Prepare(PutAttemptSql()));
  put.Bind(ordinal);
  BindAttempt(attempt, put);
  return put.Run();
}

absl::Status PutLabels(Database& db, int64_t ordinal, const v1::Job& job) {
  for (const auto& [key, value] : job.labels()) {
    LF_ASSIGN_OR_RETURN(Statement insert, db.Prepare("INSERT INTO job_labels VALUES (?, ?, ?)"));
    LF_RETURN_IF_ERROR(insert.Bind(ordinal).BindText(key).BindText(value).Run());
  }
  return absl::OkStatus();
}

// No active job but this one has its output; another tenant's is not named.
absl::Status CheckOutputFree(Database& db, const JobRecord& record) {
  LF_ASSIGN_OR_RETURN(Statement writers,
                      db.Prepare(absl::StrCat("SELECT id, state, tenant FROM jobs "
                                              "WHERE output_path = ? AND output_path <> '' "
                                              "AND id <> ? AND ",
                                              kGoesOn)));
  LF_ASSIGN_OR_RETURN(const bool taken,
                      writers.BindText(record.output_path).BindText(record.id).Step());
  if (!taken) return absl::OkStatus();
  const std::string id = writers.Text();
  const auto state = static_cast<v1::JobState>(writers.Int());
  const bool own = writers.Text() == record.tenant;
  return OutputInUseError(record.output_path, own ? id : "", state);
}

absl::Status CheckFree(Database& db, const NewJob& job) {
  LF_ASSIGN_OR_RETURN(
      Statement requests,
      db.Prepare("SELECT 1 FROM requests WHERE tenant = ?1 AND request_id = ?2 UNION ALL "
                 "SELECT 1 FROM tombstones WHERE tenant = ?1 AND request_id = ?2"));
  LF_ASSIGN_OR_RETURN(const bool known,
                      requests.BindText(job.record.tenant).BindText(job.request_id).Step());
  if (known) return RequestIdTakenError(job.request_id);
  return CheckOutputFree(db, job.record);
}

// A new job, within a transaction; its ordinal.
absl::StatusOr<int64_t> Insert(Database& db, const NewJob& job) {
  LF_RETURN_IF_ERROR(CheckFree(db, job));
  LF_ASSIGN_OR_RETURN(Statement insert, db.Prepare(InsertJob()));
  BindJob(job.record, insert);
  LF_RETURN_IF_ERROR(insert.Run());
  const int64_t ordinal = db.last_insert_rowid();
  LF_RETURN_IF_ERROR(PutLabels(db, ordinal, job.record.job));
  LF_RETURN_IF_ERROR(AppendEvents(db, ordinal, job.events));
  if (job.request_id.empty()) return ordinal;
  LF_ASSIGN_OR_RETURN(Statement request, db.Prepare("INSERT INTO requests VALUES (?, ?, ?, ?)"));
  LF_RETURN_IF_ERROR(request.BindText(job.record.tenant)
                         .BindText(job.request_id)
                         .Bind(ordinal)
                         .BindText(job.request_digest)
                         .Run());
  return ordinal;
}

// 0 rows changed: the job is gone, or has another version.
absl::Status ExplainMiss(Database& db, absl::string_view id, int64_t expected_version) {
  LF_RETURN_IF_ERROR(OrdinalOf(db, id).status());
  return ConcurrentTransitionError(id, expected_version);
}

// The change of one job, within a transaction.
absl::StatusOr<JobRecord> Write(Database& db, const JobUpdate& update) {
  // A job enters the active states by the queue alone.
  if (update.record.job.status().state() == v1::JOB_STATE_QUEUED)
    LF_RETURN_IF_ERROR(CheckOutputFree(db, update.record));
  LF_ASSIGN_OR_RETURN(Statement change, db.Prepare(UpdateJob()));
  BindMutable(update.record, change);
  LF_RETURN_IF_ERROR(change.Bind(update.expected_version).BindText(update.record.id).Run());
  if (db.changes() != 1) return ExplainMiss(db, update.record.id, update.expected_version);
  LF_RETURN_IF_ERROR(AppendEvents(db, update.record.ordinal, update.events));
  if (update.attempt.has_value())
    LF_RETURN_IF_ERROR(PutAttempt(db, update.record.ordinal, *update.attempt));
  JobRecord written = update.record;
  written.version = update.expected_version + 1;
  return written;
}

absl::StatusOr<std::optional<JobRecord>> NextClaimable(Database& db, const ClaimQuery& query) {
  // Left to itself SQLite takes the index by state and sorts the whole queue.
  LF_ASSIGN_OR_RETURN(
      Statement select,
      db.Prepare(absl::StrCat(SelectJobs(), "INDEXED BY jobs_claimable WHERE ", kIsQueued,
                              " AND claimable_time <= ? AND needs_cuda <= ? "
                              "ORDER BY rank_time, ordinal LIMIT 1")));
  select.Bind(query.now).Bind(int64_t{query.with_cuda});
  LF_ASSIGN_OR_RETURN(std::vector<JobRecord> found, ReadJobs(select));
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
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
  LF_ASSIGN_OR_RETURN(Database writer, Database::Open(path, Database::Mode::kReadWrite));
  LF_RETURN_IF_ERROR(Annotate(Configure(writer, options), path.string()));
  LF_RETURN_IF_ERROR(Annotate(Migrate(writer, clock.Now()), path.string()));
  LF_ASSIGN_OR_RETURN(Database reader, Database::Open(path, Database::Mode::kReadOnly));
  return std::unique_ptr<SqliteStore>(
      new SqliteStore(clock, *std::move(lock), std::move(writer), std::move(reader)));
}

absl::StatusOr<JobRecord> SqliteStore::Create(const NewJob& job) {
  JobRecord created = job.record;
  created.version = 1;
  LF_RETURN_IF_ERROR(writes_.Run([&](Database& db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(created.ordinal, Insert(db, job));
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
  std::string sql = SelectJobs() + "WHERE ordinal < ?";
  if (!query.tenant.empty()) sql += " AND tenant = ?";
  if (!query.states.empty())
    absl::StrAppend(&sql, " AND state IN (",
                    absl::StrJoin(query.states, ",",
                                  [](std::string* out, v1::JobState state) {
                                    absl::StrAppend(out, static_cast<int>(state));
                                  }),
                    ")");
  for (size_t i = 0; i < query.labels.size(); ++i)
    sql += " AND ordinal IN (SELECT ordinal FROM job_labels WHERE key = ? AND value = ?)";
  sql += " ORDER BY ordinal DESC LIMIT ?";
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(Statement select, reader_.Prepare(sql));
  select.Bind(query.before_ordinal);
  if (!query.tenant.empty()) select.BindText(query.tenant);
  for (const auto& [key, value] : query.labels) select.BindText(key).BindText(value);
  return ReadJobs(select.Bind(int64_t{query.limit}));
}

absl::StatusOr<JobRecord> SqliteStore::Commit(const JobUpdate& update) {
  JobRecord committed;
  LF_RETURN_IF_ERROR(writes_.Run([&](Database& db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(committed, Write(db, update));
    return absl::OkStatus();
  }));
  return committed;
}

absl::StatusOr<std::optional<JobRecord>> SqliteStore::Claim(const ClaimQuery& query,
                                                            const DecideClaim& decide) {
  std::optional<JobRecord> claimed;
  LF_RETURN_IF_ERROR(writes_.Run([&](Database& db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const std::optional<JobRecord> candidate, NextClaimable(db, query));
    if (!candidate.has_value()) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(const JobUpdate update, decide(*candidate));
    LF_ASSIGN_OR_RETURN(claimed, Write(db, update));
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
  return writes_.Run([&](Database& db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement bury,
        db.Prepare("INSERT INTO tombstones SELECT requests.tenant, request_id, jobs.id, digest, ? "
                   "FROM requests JOIN jobs USING (ordinal) WHERE jobs.id = ?"));
    LF_RETURN_IF_ERROR(bury.Bind(deletion.delete_time).BindText(deletion.id).Run());
    LF_ASSIGN_OR_RETURN(Statement remove,
                        db.Prepare("DELETE FROM jobs WHERE id = ? AND version = ?"));
    LF_RETURN_IF_ERROR(remove.BindText(deletion.id).Bind(deletion.expected_version).Run());
    if (db.changes() == 1) return absl::OkStatus();
    return ExplainMiss(db, deletion.id, deletion.expected_version);
  });
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
