// The store that several servers share: one PostgreSQL database.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "service/store/postgres_pool.h"
#include "service/store/store.h"

namespace latentforge::service {

struct PostgresOptions {
  int connections = 10;                        // most at once
  absl::Duration patience = absl::Seconds(5);  // for one of them
  PgConnection::Timeouts timeouts;             // of each statement
};

// Every write is one transaction at READ COMMITTED, guarded by the row's version, with
// synchronous_commit on: other servers write at any moment, and none needs more. A
// transaction that the database gave up for another one is repeated a few times.
//
// When the connection breaks while a commit is under way, Unavailable STORE_DOWN leaves
// open whether it happened. Who repeats the call is safe: Create with its request_id
// finds the job that it made; Commit finds a newer version, and the command is decided
// again on it (workers' reports carry sequences, their ends are recognised, cancelling
// twice is one); a claim that nobody heard of ends with its lease.
//
// Safe for concurrent use: each call borrows a connection of the pool.
class PostgresStore final : public Store {
 public:
  // Connects and brings the database to the current schema. InvalidArgument as
  // CheckPostgresUri; FailedPrecondition for a newer schema or an older PostgreSQL;
  // Unavailable STORE_DOWN. No error holds a password. Borrows the clock, which is only
  // used for intervals.
  static absl::StatusOr<std::unique_ptr<PostgresStore>> Open(const std::string& uri,
                                                             const PostgresOptions& options = {},
                                                             const Clock& clock = RealClock());

  bool shared() const override { return true; }
  absl::StatusOr<absl::Time> Now() override;
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
  PostgresStore(PgPool::Connect connect, const PostgresOptions& options, const Clock& clock)
      : pool_(std::move(connect), options.connections, options.patience, clock) {}

  absl::StatusOr<PgRows> Query(const std::string& sql, const PgParams& params = {});
  absl::StatusOr<std::vector<JobRecord>> Jobs(const std::string& condition, const PgParams& params);
  // Runs `body` in a transaction, and again when the database gave it up.
  absl::Status InTransaction(const std::function<absl::Status(PgConnection&)>& body);

  PgPool pool_;
};

}  // namespace latentforge::service
