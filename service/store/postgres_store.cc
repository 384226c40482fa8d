#include "service/store/postgres_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/store/postgres_claim.h"
#include "service/store/postgres_create.h"
#include "service/store/postgres_events.h"
#include "service/store/postgres_list.h"
#include "service/store/postgres_logs.h"
#include "service/store/postgres_rows.h"
#include "service/store/postgres_schema.h"
#include "service/store/postgres_uri.h"
#include "service/store/postgres_writes.h"
#include "service/store/state_sets.h"

namespace latentforge::service {
namespace {

constexpr int kMaxRounds = 5;

}  // namespace

absl::StatusOr<std::unique_ptr<PostgresStore>> PostgresStore::Open(const std::string& uri,
                                                                   const PostgresOptions& options,
                                                                   const Clock& clock) {
  LF_RETURN_IF_ERROR(CheckPostgresUri(uri));
  {
    LF_ASSIGN_OR_RETURN(PgConnection connection, PgConnection::Connect(uri, MigrationTimeouts()));
    LF_RETURN_IF_ERROR(Annotate(MigratePostgres(connection), DescribePostgres(uri)));
  }
  const auto connect = [uri, timeouts = options.timeouts] {
    return PgConnection::Connect(uri, timeouts);
  };
  return std::unique_ptr<PostgresStore>(new PostgresStore(connect, options, clock));
}

absl::StatusOr<PgRows> PostgresStore::Query(const std::string& sql, const PgParams& params) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  return connection->Run(sql, params);
}

absl::StatusOr<std::vector<JobRecord>> PostgresStore::Jobs(const std::string& condition,
                                                           const PgParams& params) {
  LF_ASSIGN_OR_RETURN(PgRows rows, Query(postgres::SelectJobs() + condition, params));
  return postgres::ReadJobs(rows);
}

absl::Status PostgresStore::InTransaction(const std::function<absl::Status(PgConnection&)>& body) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  const auto once = [&]() -> absl::Status {
    PgTransaction transaction(*connection);
    LF_RETURN_IF_ERROR(body(*connection));
    return transaction.Commit();
  };
  const auto given_up = [](const absl::Status& status) {
    return absl::IsAborted(status) && ReasonOf(status) == kStoreBusy;
  };
  absl::Status status = once();
  for (int round = 1; round < kMaxRounds && given_up(status); ++round) status = once();
  if (!given_up(status)) return status;
  return WithRetryDelay(MakeError(absl::StatusCode::kUnavailable, kStoreBusy, status.message()),
                        absl::Seconds(1));
}

absl::StatusOr<absl::Time> PostgresStore::Now() {
  LF_ASSIGN_OR_RETURN(PgRows rows,
                      Query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"));
  rows.Next();
  return rows.Time();
}

absl::StatusOr<JobRecord> PostgresStore::Create(const NewJob& job) {
  JobRecord created = job.record;
  created.version = 1;
  LF_RETURN_IF_ERROR(InTransaction([&](PgConnection& connection) -> absl::Status {
    LF_ASSIGN_OR_RETURN(created.ordinal, postgres::WriteJob(connection, job));
    return absl::OkStatus();
  }));
  return created;
}

absl::StatusOr<JobRecord> PostgresStore::Get(absl::string_view id) {
  static const std::string kSelect = postgres::SelectJobs() + "WHERE id = $1";
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  LF_ASSIGN_OR_RETURN(PgRows rows, connection->RunKept(kSelect, PgParams().BindText(id)));
  if (!rows.Next()) return JobNotFoundError(id);
  return postgres::ReadJob(rows);
}

absl::StatusOr<std::optional<StoredRequest>> PostgresStore::FindRequest(
    absl::string_view tenant, absl::string_view request_id) {
  static const std::string kSelect =
      "SELECT jobs.id, requests.digest, 0::bigint FROM requests JOIN jobs USING (ordinal) "
      "WHERE requests.tenant = $1 AND request_id = $2 UNION ALL "
      "SELECT job_id, digest, 1::bigint FROM tombstones WHERE tenant = $1 AND request_id = $2";
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  LF_ASSIGN_OR_RETURN(
      PgRows rows, connection->RunKept(kSelect, PgParams().BindText(tenant).BindBlob(request_id)));
  if (!rows.Next()) return std::nullopt;
  StoredRequest request;
  request.job_id = rows.Text();
  request.digest = rows.Blob();
  request.deleted = rows.Int() != 0;
  return request;
}

absl::StatusOr<std::vector<JobRecord>> PostgresStore::List(const JobQuery& query) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  return postgres::ListJobs(*connection, query);
}

absl::StatusOr<JobRecord> PostgresStore::Commit(const JobUpdate& update) {
  const auto write = [&](PgConnection& connection) {
    return postgres::WriteUpdate(connection, update);
  };
  if (update.events.empty() && !update.attempt.has_value()) {
    // A heartbeat: one statement is a transaction of its own.
    LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
    LF_RETURN_IF_ERROR(write(*connection));
  } else {
    LF_RETURN_IF_ERROR(InTransaction(write));
  }
  JobRecord committed = update.record;
  committed.version = update.expected_version + 1;
  return committed;
}

absl::StatusOr<std::optional<JobRecord>> PostgresStore::Claim(const ClaimQuery& query,
                                                              const DecideClaim& decide) {
  std::optional<JobRecord> claimed;
  LF_RETURN_IF_ERROR(InTransaction([&](PgConnection& connection) -> absl::Status {
    LF_ASSIGN_OR_RETURN(claimed, postgres::ClaimNext(connection, query, decide));
    return absl::OkStatus();
  }));
  return claimed;
}

absl::StatusOr<std::vector<JobRecord>> PostgresStore::LeasesEndingBy(absl::Time time) {
  return Jobs(absl::StrCat("WHERE ", kHoldsLease, " AND lease_expire_time <= $1"),
              PgParams().Bind(time));
}

absl::StatusOr<std::vector<JobRecord>> PostgresStore::DeadlinesBy(absl::Time time) {
  return Jobs("WHERE due_time IS NOT NULL AND due_time <= $1", PgParams().Bind(time));
}

absl::StatusOr<std::vector<v1::JobEvent>> PostgresStore::Events(absl::string_view id, int64_t after,
                                                                int limit) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  return postgres::ReadEvents(*connection, id, after, limit);
}

absl::Status PostgresStore::CompactEvents(const EventCompaction& compaction) {
  return InTransaction(
      [&](PgConnection& connection) { return postgres::RemoveEvents(connection, compaction); });
}

absl::StatusOr<int64_t> PostgresStore::CompactedThrough(absl::string_view id) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  return postgres::ReadCompactedThrough(*connection, id);
}

absl::StatusOr<std::vector<EventSpan>> PostgresStore::LongHistories(int64_t events, int limit) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  return postgres::ReadLongHistories(*connection, events, limit);
}

absl::StatusOr<std::map<std::string, int64_t>> PostgresStore::LastSequences(
    const std::vector<std::string>& ids) {
  LF_ASSIGN_OR_RETURN(PgRows rows,
                      Query("SELECT id, last_sequence FROM jobs JOIN job_states USING (ordinal) "
                            "WHERE id = ANY ($1)",
                            PgParams().BindTexts(ids)));
  std::map<std::string, int64_t> sequences;
  while (rows.Next()) {
    const std::string id = rows.Text();
    sequences[id] = rows.Int();
  }
  return sequences;
}

absl::StatusOr<std::vector<AttemptRecord>> PostgresStore::Attempts(absl::string_view id,
                                                                   int32_t after, int limit) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, postgres::OrdinalOf(*connection, id));
  LF_ASSIGN_OR_RETURN(
      PgRows rows,
      connection->Run(postgres::SelectAttempts() +
                          "WHERE ordinal = $1 AND number > $2 ORDER BY number LIMIT $3",
                      PgParams().Bind(ordinal).Bind(int64_t{after}).Bind(int64_t{limit})));
  std::vector<AttemptRecord> attempts;
  while (rows.Next()) {
    LF_ASSIGN_OR_RETURN(attempts.emplace_back(), postgres::ReadAttempt(rows));
  }
  return attempts;
}

absl::StatusOr<LogAppended> PostgresStore::AppendLogs(const LogAppend& append) {
  LogAppended appended;
  LF_RETURN_IF_ERROR(InTransaction([&](PgConnection& connection) -> absl::Status {
    LF_ASSIGN_OR_RETURN(appended, postgres::WriteLogs(connection, append));
    return absl::OkStatus();
  }));
  return appended;
}

absl::StatusOr<std::vector<LogRecord>> PostgresStore::Logs(const LogQuery& query) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  return postgres::ReadLogs(*connection, query);
}

absl::StatusOr<int64_t> PostgresStore::LogTail(absl::string_view id, int32_t attempt, int lines) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  return postgres::FindLogTail(*connection, id, attempt, lines);
}

absl::Status PostgresStore::Delete(const JobDeletion& deletion) {
  return InTransaction(
      [&](PgConnection& connection) { return postgres::WriteDeletion(connection, deletion); });
}

absl::StatusOr<std::vector<JobRecord>> PostgresStore::ExpiredBy(absl::Time time, int limit) {
  return Jobs("WHERE expire_time IS NOT NULL AND expire_time <= $1 ORDER BY expire_time LIMIT $2",
              PgParams().Bind(time).Bind(int64_t{limit}));
}

absl::Status PostgresStore::PurgeTombstones(absl::Time time, int limit) {
  // Servers that purge at once take different ones.
  return Query(
             "DELETE FROM tombstones WHERE request_id IN (SELECT request_id FROM tombstones "
             "WHERE delete_time <= $1 ORDER BY delete_time LIMIT $2 FOR UPDATE SKIP LOCKED)",
             PgParams().Bind(time).Bind(int64_t{limit}))
      .status();
}

absl::StatusOr<StoreStats> PostgresStore::Stats() {
  LF_ASSIGN_OR_RETURN(PgRows rows,
                      Query("SELECT state, count(*), min(queue_time) FILTER (WHERE state = 1) "
                            "FROM job_states GROUP BY state"));
  StoreStats stats;
  while (rows.Next()) {
    const auto state = static_cast<v1::JobState>(rows.Int());
    stats.jobs[state] = rows.Int();
    if (!rows.NextIsNull()) stats.oldest_queue_time = rows.Time();
  }
  return stats;
}

absl::StatusOr<TenantUse> PostgresStore::Use(absl::string_view tenant) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  return postgres::ReadUse(*connection, tenant);
}

absl::StatusOr<std::vector<std::string>> PostgresStore::WaitingNeeds(absl::string_view tenant) {
  LF_ASSIGN_OR_RETURN(PgPool::Loan connection, pool_.Borrow());
  return postgres::ReadWaitingNeeds(*connection, tenant);
}

absl::StatusOr<std::string> PostgresStore::GetOrPutSecret(absl::string_view name,
                                                          absl::string_view fresh) {
  LF_RETURN_IF_ERROR(Query("INSERT INTO secrets VALUES ($1, $2) ON CONFLICT DO NOTHING",
                           PgParams().BindText(name).BindBlob(fresh))
                         .status());
  LF_ASSIGN_OR_RETURN(
      PgRows rows, Query("SELECT value FROM secrets WHERE name = $1", PgParams().BindText(name)));
  if (!rows.Next()) return absl::InternalError(absl::StrCat("the secret ", name, " is gone"));
  return rows.Blob();
}

}  // namespace latentforge::service
