#include "service/store/sqlite_schema.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::service {
namespace {

// Times are microseconds since the epoch. Partial indexes hold only the rows that
// the scheduler looks for, so they stay small however many jobs have ended.
constexpr const char* kMigrations[] = {
    R"sql(
CREATE TABLE jobs (
  ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  state INTEGER NOT NULL,
  job BLOB NOT NULL,
  status BLOB NOT NULL,
  estimate BLOB NOT NULL,
  output_path TEXT NOT NULL,
  needs_cuda INTEGER NOT NULL,
  last_sequence INTEGER NOT NULL,
  update_time INTEGER NOT NULL,
  end_time INTEGER,
  deadline_time INTEGER,
  lease_epoch INTEGER NOT NULL,
  completed_epoch INTEGER NOT NULL,
  counted_attempts INTEGER NOT NULL,
  attempt_sequence INTEGER NOT NULL,
  attempt_start_time INTEGER NOT NULL,
  lease_expire_time INTEGER NOT NULL,
  queue_time INTEGER NOT NULL,
  claimable_time INTEGER NOT NULL,
  progress_event_time INTEGER NOT NULL,
  progress_event_percent REAL NOT NULL
) STRICT;
CREATE INDEX jobs_claimable ON jobs (ordinal, claimable_time, needs_cuda) WHERE state = 1;
CREATE INDEX jobs_leased ON jobs (lease_expire_time) WHERE state IN (2, 3);
CREATE INDEX jobs_deadline ON jobs (deadline_time)
  WHERE state IN (1, 2, 3) AND deadline_time IS NOT NULL;
CREATE UNIQUE INDEX jobs_output ON jobs (output_path)
  WHERE state IN (1, 2, 3) AND output_path <> '';
CREATE INDEX jobs_by_state ON jobs (state, ordinal);
CREATE TABLE job_labels (
  ordinal INTEGER NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (key, value, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_labels_by_job ON job_labels (ordinal);
CREATE TABLE events (
  ordinal INTEGER NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  sequence INTEGER NOT NULL,
  event BLOB NOT NULL,
  PRIMARY KEY (ordinal, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE attempts (
  ordinal INTEGER NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  lease_epoch INTEGER NOT NULL,
  worker TEXT NOT NULL,
  start_time INTEGER NOT NULL,
  end_time INTEGER NOT NULL,
  outcome INTEGER NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (ordinal, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE requests (
  request_id TEXT PRIMARY KEY,
  ordinal INTEGER NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  digest TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_job ON requests (ordinal);
CREATE TABLE secrets (
  name TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
)sql",
    // Jobs can be paused (states 7 and 8) and have etags, ranks, more deadlines and a
    // time to live. An attempt keeps its whole error, which was a reason (field 1 of the
    // message, of at most 63 bytes), and its phases. A deleted job's request_id stays.
    R"sql(
ALTER TABLE jobs ADD COLUMN etag TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN rank_time INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN queue_deadline_time INTEGER;
ALTER TABLE jobs ADD COLUMN expire_time INTEGER;
DROP INDEX jobs_claimable;
DROP INDEX jobs_leased;
DROP INDEX jobs_deadline;
DROP INDEX jobs_output;
ALTER TABLE jobs RENAME COLUMN deadline_time TO due_time;
UPDATE jobs SET etag = '"' || last_sequence || '"', rank_time = queue_time,
  due_time = CASE WHEN state IN (4, 5, 6) THEN NULL ELSE due_time END;
CREATE INDEX jobs_claimable ON jobs (rank_time, ordinal, claimable_time, needs_cuda)
  WHERE state = 1;
CREATE INDEX jobs_leased ON jobs (lease_expire_time) WHERE state IN (2, 3, 7);
CREATE INDEX jobs_due ON jobs (due_time) WHERE due_time IS NOT NULL;
CREATE INDEX jobs_expire ON jobs (expire_time) WHERE expire_time IS NOT NULL;
CREATE UNIQUE INDEX jobs_output ON jobs (output_path)
  WHERE state IN (1, 2, 3, 7, 8) AND output_path <> '';
ALTER TABLE attempts ADD COLUMN error BLOB NOT NULL DEFAULT x'';
ALTER TABLE attempts ADD COLUMN phases BLOB NOT NULL DEFAULT x'';
UPDATE attempts SET error = CAST(char(10, length(reason)) || reason AS BLOB) WHERE reason <> '';
ALTER TABLE attempts DROP COLUMN reason;
CREATE TABLE tombstones (
  tenant TEXT NOT NULL,
  request_id TEXT NOT NULL,
  job_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  delete_time INTEGER NOT NULL,
  PRIMARY KEY (tenant, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_time ON tombstones (delete_time);
)sql",
    // Tenants: jobs from before belong to the default one, and a request_id is one tenant's.
    R"sql(
ALTER TABLE jobs ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
CREATE INDEX jobs_by_tenant ON jobs (tenant, ordinal, state);
ALTER TABLE requests RENAME TO requests_of_all;
CREATE TABLE requests (
  tenant TEXT NOT NULL,
  request_id TEXT NOT NULL,
  ordinal INTEGER NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  digest TEXT NOT NULL,
  PRIMARY KEY (tenant, request_id)
) STRICT, WITHOUT ROWID;
INSERT INTO requests SELECT 'default', request_id, ordinal, digest FROM requests_of_all;
DROP TABLE requests_of_all;
CREATE INDEX requests_by_job ON requests (ordinal);
)sql",
    // Queued jobs are found by tenant and by what they need of a worker: of earlier ones
    // only whether that is CUDA is known. Tenants have shares; '' is their clock. An index
    // covers a query only with the column of its own condition.
    R"sql(
DROP INDEX jobs_claimable;
ALTER TABLE jobs ADD COLUMN needs TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET needs = 'cuda', gpus = state IN (2, 3, 7) WHERE needs_cuda = 1;
ALTER TABLE jobs DROP COLUMN needs_cuda;
CREATE INDEX jobs_by_kind ON jobs (tenant, needs, rank_time, ordinal, claimable_time, state)
  WHERE state = 1;
CREATE INDEX jobs_running ON jobs (tenant, gpus, state) WHERE state IN (2, 3, 7);
CREATE INDEX jobs_paused ON jobs (tenant, state) WHERE state = 8;
CREATE TABLE tenant_shares (
  tenant TEXT PRIMARY KEY,
  virtual_time REAL NOT NULL
) STRICT, WITHOUT ROWID;
)sql",
    // What attempts' processes write to stderr. total_bytes counts the attempt's text up to
    // and with this line, whether or not it is still there. Of a job in compactions, events
    // up to `through` are no longer complete.
    R"sql(
CREATE TABLE attempt_logs (
  ordinal INTEGER NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  attempt INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  time INTEGER NOT NULL,
  text TEXT NOT NULL,
  total_bytes INTEGER NOT NULL,
  PRIMARY KEY (ordinal, attempt, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE compactions (
  ordinal INTEGER PRIMARY KEY REFERENCES jobs (ordinal) ON DELETE CASCADE,
  through INTEGER NOT NULL
) STRICT;
)sql",
    // Kinds of paused jobs count like those of queued ones.
    R"sql(
DROP INDEX jobs_paused;
CREATE INDEX jobs_paused ON jobs (tenant, needs, state) WHERE state = 8;
CREATE INDEX jobs_long ON jobs (last_sequence) WHERE last_sequence >= 1000;
)sql",
    // Who holds a lease. Of leases from before that is not known.
    R"sql(
ALTER TABLE jobs ADD COLUMN lease_subject TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN subject_epoch INTEGER NOT NULL DEFAULT 0;
)sql",
    // A tenant's jobs in a state are listed without those in others.
    R"sql(
CREATE INDEX jobs_by_tenant_and_state ON jobs (tenant, state, ordinal);
)sql",
};

absl::StatusOr<int> ReadVersion(Database& db) {
  LF_RETURN_IF_ERROR(
      db.Execute("CREATE TABLE IF NOT EXISTS schema_migrations ("
                 "version INTEGER PRIMARY KEY, applied_time INTEGER NOT NULL) STRICT"));
  LF_ASSIGN_OR_RETURN(Statement query,
                      db.Prepare("SELECT coalesce(max(version), 0) FROM schema_migrations"));
  LF_RETURN_IF_ERROR(query.Step().status());
  return static_cast<int>(query.Int());
}

}  // namespace

int CurrentSchemaVersion() { return static_cast<int>(std::size(kMigrations)); }

absl::Status Migrate(Database& db, absl::Time now, int version) {
  LF_ASSIGN_OR_RETURN(const int found, ReadVersion(db));
  if (found > CurrentSchemaVersion()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the database has schema version ", found, ", this server knows up to ",
                     CurrentSchemaVersion(), "; use a newer latentforge-server"));
  }
  for (int step = found + 1; step <= version; ++step) {
    LF_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(db));
    LF_RETURN_IF_ERROR(db.Execute(kMigrations[step - 1]));
    LF_ASSIGN_OR_RETURN(Statement insert,
                        db.Prepare("INSERT INTO schema_migrations VALUES (?, ?)"));
    LF_RETURN_IF_ERROR(insert.Bind(int64_t{step}).Bind(now).Run());
    LF_RETURN_IF_ERROR(transaction.Commit());
  }
  return absl::OkStatus();
}

}  // namespace latentforge::service
