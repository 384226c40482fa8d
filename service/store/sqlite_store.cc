#include "service/store/sqlite_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "service/store/sqlite_rows.h"
#include "service/store/sqlite_schema.h"

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

// NotFound when there is no such job.
absl::StatusOr<int64_t> OrdinalOf(Database& db, absl::string_view id) {
  LF_ASSIGN_OR_RETURN(Statement query, db.Prepare("SELECT ordinal FROM jobs WHERE id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, query.BindText(id).Step());
  if (!found) return JobNotFoundError(id);
  return query.Int();
}

absl::Status AppendEvents(Database& db, int64_t ordinal, const std::vector<v1::JobEvent>& events) {
  if (events.empty()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(Statement insert, db.Prepare("INSERT INTO events VALUES (?, ?, ?)"));
  for (const v1::JobEvent& event : events) {
    insert.Reset();
    LF_RETURN_IF_ERROR(
        insert.Bind(ordinal).Bind(event.sequence()).BindBlob(event.SerializeAsString()).Run());
  }
  return absl::OkStatus();
}

absl::Status PutAttempt(Database& db, int64_t ordinal, const AttemptRecord& attempt) {
  LF_ASSIGN_OR_RETURN(
      Statement put, db.Prepare("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?)"));
  return put.Bind(ordinal)
      .Bind(int64_t{attempt.number})
      .Bind(attempt.lease_epoch)
      .BindText(attempt.worker)
      .Bind(attempt.start_time)
      .Bind(attempt.end_time)
      .Bind(static_cast<int64_t>(attempt.outcome))
      .BindText(attempt.reason)
      .Run();
}

absl::Status PutLabels(Database& db, int64_t ordinal, const v1::Job& job) {
  for (const auto& [key, value] : job.labels()) {
    LF_ASSIGN_OR_RETURN(Statement insert, db.Prepare("INSERT INTO job_labels VALUES (?, ?, ?)"));
    LF_RETURN_IF_ERROR(insert.Bind(ordinal).BindText(key).BindText(value).Run());
  }
  return absl::OkStatus();
}

absl::Status CheckFree(Database& db, const NewJob& job) {
  LF_ASSIGN_OR_RETURN(Statement requests,
                      db.Prepare("SELECT 1 FROM requests WHERE tenant = ? AND request_id = ?"));
  LF_ASSIGN_OR_RETURN(const bool known,
                      requests.BindText(job.record.tenant).BindText(job.request_id).Step());
  if (known) return RequestIdTakenError(job.request_id);
  LF_ASSIGN_OR_RETURN(Statement writers,
                      db.Prepare("SELECT id, state, tenant FROM jobs WHERE output_path = ? "
                                 "AND output_path <> '' AND state IN (1, 2, 3)"));
  LF_ASSIGN_OR_RETURN(const bool taken, writers.BindText(job.record.output_path).Step());
  if (!taken) return absl::OkStatus();
  const std::string id = writers.Text();
  const auto state = static_cast<v1::JobState>(writers.Int());
  const bool own = writers.Text() == job.record.tenant;
  return OutputInUseError(job.record.output_path, own ? id : "", state);
}

// 0 rows changed: the job is gone, or has another version.
absl::Status ExplainMiss(Database& db, absl::string_view id, int64_t expected_version) {
  LF_RETURN_IF_ERROR(OrdinalOf(db, id).status());
  return ConcurrentTransitionError(id, expected_version);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(const std::filesystem::path& path,
                                                               const SqliteOptions& options) {
  std::filesystem::path lock_path = path;
  lock_path += ".lock";
  auto lock = FileLock::Acquire(lock_path);
  if (!lock.ok()) {
    return Annotate(lock.status(),
                    absl::StrCat("database ", path.string(), " cannot be opened by this server"));
  }
  LF_ASSIGN_OR_RETURN(Database writer, Database::Open(path, Database::Mode::kReadWrite));
  LF_RETURN_IF_ERROR(Annotate(Configure(writer, options), path.string()));
  LF_RETURN_IF_ERROR(Annotate(Migrate(writer, absl::Now()), path.string()));
  LF_ASSIGN_OR_RETURN(Database reader, Database::Open(path, Database::Mode::kReadOnly));
  return std::unique_ptr<SqliteStore>(
      new SqliteStore(*std::move(lock), std::move(writer), std::move(reader)));
}

absl::StatusOr<JobRecord> SqliteStore::Create(const NewJob& job) {
  absl::MutexLock lock(&write_mutex_);
  LF_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(writer_));
  LF_RETURN_IF_ERROR(CheckFree(writer_, job));
  LF_ASSIGN_OR_RETURN(Statement insert, writer_.Prepare(InsertJob()));
  BindJob(job.record, insert);
  LF_RETURN_IF_ERROR(insert.Run());
  JobRecord created = job.record;
  created.ordinal = writer_.last_insert_rowid();
  created.version = 1;
  LF_RETURN_IF_ERROR(PutLabels(writer_, created.ordinal, created.job));
  LF_RETURN_IF_ERROR(AppendEvents(writer_, created.ordinal, job.events));
  if (!job.request_id.empty()) {
    LF_ASSIGN_OR_RETURN(Statement request,
                        writer_.Prepare("INSERT INTO requests VALUES (?, ?, ?, ?)"));
    LF_RETURN_IF_ERROR(request.BindText(job.record.tenant)
                           .BindText(job.request_id)
                           .Bind(created.ordinal)
                           .BindText(job.request_digest)
                           .Run());
  }
  LF_RETURN_IF_ERROR(transaction.Commit());
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
      reader_.Prepare("SELECT jobs.id, requests.digest FROM requests "
                      "JOIN jobs USING (ordinal) WHERE requests.tenant = ? AND request_id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, query.BindText(tenant).BindText(request_id).Step());
  if (!found) return std::nullopt;
  StoredRequest request;
  request.job_id = query.Text();
  request.digest = query.Text();
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
  absl::MutexLock lock(&write_mutex_);
  LF_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(writer_));
  LF_ASSIGN_OR_RETURN(Statement change, writer_.Prepare(UpdateJob()));
  BindMutable(update.record, change);
  LF_RETURN_IF_ERROR(change.Bind(update.expected_version).BindText(update.record.id).Run());
  if (writer_.changes() != 1)
    return ExplainMiss(writer_, update.record.id, update.expected_version);
  LF_RETURN_IF_ERROR(AppendEvents(writer_, update.record.ordinal, update.events));
  if (update.attempt.has_value())
    LF_RETURN_IF_ERROR(PutAttempt(writer_, update.record.ordinal, *update.attempt));
  LF_RETURN_IF_ERROR(transaction.Commit());
  JobRecord committed = update.record;
  committed.version = update.expected_version + 1;
  return committed;
}

absl::StatusOr<std::optional<JobRecord>> SqliteStore::NextClaimable(absl::Time now,
                                                                    bool with_cuda) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(
      Statement query,
      reader_.Prepare(SelectJobs() + "WHERE state = 1 AND claimable_time <= ? AND needs_cuda <= ? "
                                     "ORDER BY ordinal LIMIT 1"));
  query.Bind(now).Bind(int64_t{with_cuda});
  LF_ASSIGN_OR_RETURN(std::vector<JobRecord> found, ReadJobs(query));
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

absl::StatusOr<std::vector<JobRecord>> SqliteStore::LeasesEndingBy(absl::Time time) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(
      Statement query,
      reader_.Prepare(SelectJobs() + "WHERE state IN (2, 3) AND lease_expire_time <= ?"));
  return ReadJobs(
      query.Bind(time == absl::InfiniteFuture() ? kMaxMicros : absl::ToUnixMicros(time)));
}

absl::StatusOr<std::vector<JobRecord>> SqliteStore::DeadlinesBy(absl::Time time) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(
      Statement query,
      reader_.Prepare(SelectJobs() + "WHERE state IN (1, 2, 3) AND deadline_time IS NOT NULL "
                                     "AND deadline_time <= ?"));
  return ReadJobs(query.Bind(time));
}

absl::StatusOr<std::vector<v1::JobEvent>> SqliteStore::Events(absl::string_view id, int64_t after,
                                                              int limit) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(reader_, id));
  LF_ASSIGN_OR_RETURN(Statement query,
                      reader_.Prepare("SELECT event FROM events WHERE ordinal = ? AND sequence > ? "
                                      "ORDER BY sequence LIMIT ?"));
  query.Bind(ordinal).Bind(after).Bind(int64_t{limit});
  std::vector<v1::JobEvent> events;
  while (true) {
    LF_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return events;
    if (!events.emplace_back().ParseFromString(query.Blob()))
      return absl::DataLossError(absl::StrCat("an event of job ", id, " is corrupt"));
  }
}

absl::StatusOr<std::vector<AttemptRecord>> SqliteStore::Attempts(absl::string_view id) {
  absl::MutexLock lock(&read_mutex_);
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(reader_, id));
  LF_ASSIGN_OR_RETURN(
      Statement query,
      reader_.Prepare("SELECT number, lease_epoch, worker, start_time, end_time, outcome, reason "
                      "FROM attempts WHERE ordinal = ? ORDER BY number"));
  query.Bind(ordinal);
  std::vector<AttemptRecord> attempts;
  while (true) {
    LF_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return attempts;
    AttemptRecord& attempt = attempts.emplace_back();
    attempt.number = static_cast<int32_t>(query.Int());
    attempt.lease_epoch = query.Int();
    attempt.worker = query.Text();
    attempt.start_time = query.Time();
    attempt.end_time = query.Time();
    attempt.outcome = static_cast<AttemptOutcome>(query.Int());
    attempt.reason = query.Text();
  }
}

absl::Status SqliteStore::Delete(absl::string_view id, int64_t expected_version) {
  absl::MutexLock lock(&write_mutex_);
  LF_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(writer_));
  LF_ASSIGN_OR_RETURN(Statement remove,
                      writer_.Prepare("DELETE FROM jobs WHERE id = ? AND version = ?"));
  LF_RETURN_IF_ERROR(remove.BindText(id).Bind(expected_version).Run());
  if (writer_.changes() != 1) return ExplainMiss(writer_, id, expected_version);
  return transaction.Commit();
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
  LF_ASSIGN_OR_RETURN(Statement oldest,
                      reader_.Prepare("SELECT min(queue_time) FROM jobs WHERE state = 1"));
  LF_RETURN_IF_ERROR(oldest.Step().status());
  if (!oldest.NextIsNull()) stats.oldest_queue_time = oldest.Time();
  return stats;
}

absl::StatusOr<std::string> SqliteStore::GetOrPutSecret(absl::string_view name,
                                                        absl::string_view fresh) {
  absl::MutexLock lock(&write_mutex_);
  LF_ASSIGN_OR_RETURN(Statement put,
                      writer_.Prepare("INSERT OR IGNORE INTO secrets VALUES (?, ?)"));
  LF_RETURN_IF_ERROR(put.BindText(name).BindBlob(fresh).Run());
  LF_ASSIGN_OR_RETURN(Statement get, writer_.Prepare("SELECT value FROM secrets WHERE name = ?"));
  LF_RETURN_IF_ERROR(get.BindText(name).Step().status());
  return get.Blob();
}

}  // namespace latentforge::service
