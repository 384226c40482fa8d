#include "service/store/postgres_schema.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::service {
namespace {

// "latentf" in ASCII: what other users of the database do not lock by chance.
constexpr int64_t kMigrationLock = 0x6c6174656e7466;

// States as in v1::JobState: 1 queued, 2 running, 3 cancelling, 7 pausing, 8 paused. Times are
// microseconds since the epoch. Text from outside is bytea: text refuses NUL and what is no UTF-8.
//
// A heartbeat writes a new version of a job's row in job_states, so that table is
// narrow, has room for new versions beside the old ones, and no index on a column that
// a heartbeat changes (a heap-only update touches no index). Therefore leases are not
// indexed by their end: the jobs that hold one are few. Partial indexes hold only the
// rows that the scheduler looks for, however many jobs have ended. Paths are indexed by
// their hash: an entry of an index holds at most 2,704 bytes.
constexpr const char* kMigrations[] = {
    R"sql(
CREATE TABLE jobs (
  ordinal bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id text NOT NULL UNIQUE,
  tenant text NOT NULL,
  job bytea NOT NULL,
  estimate bytea NOT NULL
);
CREATE INDEX jobs_by_tenant ON jobs (tenant, ordinal);
CREATE TABLE job_states (
  ordinal bigint PRIMARY KEY REFERENCES jobs (ordinal) ON DELETE CASCADE,
  version bigint NOT NULL,
  output_path bytea NOT NULL,
  needs_cuda smallint NOT NULL,
  state smallint NOT NULL,
  etag text NOT NULL,
  status bytea NOT NULL,
  last_sequence bigint NOT NULL,
  update_time bigint NOT NULL,
  end_time bigint,
  due_time bigint,
  queue_deadline_time bigint,
  expire_time bigint,
  lease_epoch bigint NOT NULL,
  completed_epoch bigint NOT NULL,
  counted_attempts integer NOT NULL,
  attempt_sequence bigint NOT NULL,
  attempt_start_time bigint NOT NULL,
  lease_expire_time bigint NOT NULL,
  queue_time bigint NOT NULL,
  claimable_time bigint NOT NULL,
  rank_time bigint NOT NULL,
  progress_event_time bigint NOT NULL,
  progress_event_percent double precision NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX job_states_claimable ON job_states (rank_time, ordinal) WHERE state = 1;
CREATE INDEX job_states_leased ON job_states (ordinal) WHERE state IN (2, 3, 7);
CREATE INDEX job_states_due ON job_states (due_time) WHERE due_time IS NOT NULL;
CREATE INDEX job_states_expire ON job_states (expire_time) WHERE expire_time IS NOT NULL;
CREATE UNIQUE INDEX job_states_output ON job_states (sha256(output_path))
  WHERE state IN (1, 2, 3, 7, 8) AND output_path <> '';
CREATE INDEX job_states_by_state ON job_states (state, ordinal);
CREATE TABLE job_labels (
  ordinal bigint NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  key bytea NOT NULL,
  value bytea NOT NULL,
  PRIMARY KEY (key, value, ordinal)
);
CREATE INDEX job_labels_by_job ON job_labels (ordinal);
CREATE TABLE events (
  ordinal bigint NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  sequence bigint NOT NULL,
  event bytea NOT NULL,
  PRIMARY KEY (ordinal, sequence)
);
CREATE TABLE attempts (
  ordinal bigint NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  number integer NOT NULL,
  lease_epoch bigint NOT NULL,
  worker bytea NOT NULL,
  start_time bigint NOT NULL,
  end_time bigint NOT NULL,
  outcome smallint NOT NULL,
  error bytea NOT NULL,
  phases bytea NOT NULL,
  PRIMARY KEY (ordinal, number)
);
CREATE TABLE requests (
  tenant text NOT NULL,
  request_id bytea NOT NULL,
  ordinal bigint NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  digest bytea NOT NULL,
  PRIMARY KEY (tenant, request_id)
);
CREATE INDEX requests_by_job ON requests (ordinal);
CREATE TABLE tombstones (
  tenant text NOT NULL,
  request_id bytea NOT NULL,
  job_id text NOT NULL,
  digest bytea NOT NULL,
  delete_time bigint NOT NULL,
  PRIMARY KEY (tenant, request_id)
);
CREATE INDEX tombstones_by_time ON tombstones (delete_time);
CREATE TABLE secrets (
  name text PRIMARY KEY,
  value bytea NOT NULL
);
)sql",
    // Queued jobs are found by tenant and by what they need of a worker: of earlier ones
    // only whether that is CUDA is known. Tenants have shares; '' is their clock. A server of
    // the version before, which goes on meanwhile, sees no column that it does not know; what
    // its new jobs lack the trigger fills in.
    R"sql(
ALTER TABLE job_states ADD COLUMN share_tenant text COLLATE "C",
  ADD COLUMN needs text COLLATE "C", ADD COLUMN gpus integer NOT NULL DEFAULT 0;
UPDATE job_states SET share_tenant = jobs.tenant,
  needs = CASE needs_cuda WHEN 1 THEN 'cuda' ELSE '' END,
  gpus = CASE WHEN needs_cuda = 1 AND state IN (2, 3, 7) THEN 1 ELSE 0 END
  FROM jobs WHERE jobs.ordinal = job_states.ordinal;
ALTER TABLE job_states ALTER COLUMN share_tenant SET NOT NULL, ALTER COLUMN needs SET NOT NULL;
CREATE FUNCTION job_states_of_version_1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.share_tenant := (SELECT tenant FROM jobs WHERE ordinal = NEW.ordinal);
  NEW.needs := CASE NEW.needs_cuda WHEN 1 THEN 'cuda' ELSE '' END;
  RETURN NEW;
END $$;
CREATE TRIGGER job_states_of_version_1 BEFORE INSERT ON job_states FOR EACH ROW
  WHEN (NEW.share_tenant IS NULL) EXECUTE FUNCTION job_states_of_version_1();
DROP INDEX job_states_claimable;
DROP INDEX job_states_leased;
CREATE INDEX job_states_by_kind ON job_states (share_tenant, needs, rank_time, ordinal)
  WHERE state = 1;
CREATE INDEX job_states_leased ON job_states (share_tenant) WHERE state IN (2, 3, 7);
CREATE INDEX job_states_paused ON job_states (share_tenant) WHERE state = 8;
CREATE TABLE tenant_shares (
  tenant text COLLATE "C" PRIMARY KEY,
  virtual_time double precision NOT NULL
) WITH (fillfactor = 50);
INSERT INTO tenant_shares VALUES ('', 0);
)sql",
    // What attempts' processes write to stderr. total_bytes counts the attempt's text up to
    // and with this line, whether or not it is still there. Of a job in compactions, events
    // up to `through` are no longer complete.
    R"sql(
CREATE TABLE attempt_logs (
  ordinal bigint NOT NULL REFERENCES jobs (ordinal) ON DELETE CASCADE,
  attempt integer NOT NULL,
  sequence bigint NOT NULL,
  time bigint NOT NULL,
  text bytea NOT NULL,
  total_bytes bigint NOT NULL,
  PRIMARY KEY (ordinal, attempt, sequence)
);
CREATE TABLE compactions (
  ordinal bigint PRIMARY KEY REFERENCES jobs (ordinal) ON DELETE CASCADE,
  through bigint NOT NULL
);
)sql",
    // Kinds of paused jobs count like those of queued ones. Jobs with long histories are found by
    // the thousands of their events: a column that seldom changes, so that events of a running
    // job touch no index.
    R"sql(
DROP INDEX job_states_paused;
CREATE INDEX job_states_paused ON job_states (share_tenant, needs) WHERE state = 8;
ALTER TABLE job_states
  ADD COLUMN thousands integer GENERATED ALWAYS AS ((last_sequence / 1000)::integer) STORED;
CREATE INDEX job_states_long ON job_states (thousands) WHERE thousands > 0;
)sql",
    // Who holds a lease. Of leases from before, and of servers of the version before, which go on
    // meanwhile and raise the epoch alone, that is not known. Subjects are ASCII.
    R"sql(
ALTER TABLE job_states ADD COLUMN lease_subject text NOT NULL DEFAULT '',
  ADD COLUMN subject_epoch bigint NOT NULL DEFAULT 0;
)sql",
    // A tenant's jobs in a state are listed without those in others.
    R"sql(
CREATE INDEX job_states_by_tenant ON job_states (share_tenant, state, ordinal);
)sql",
};

absl::StatusOr<int> ReadVersion(PgConnection& connection) {
  LF_ASSIGN_OR_RETURN(PgRows table,
                      connection.Run("SELECT to_regclass('schema_migrations') IS NOT NULL"));
  // A boolean is one byte.
  if (!table.Next() || table.Text() != std::string(1, '\1')) return 0;
  LF_ASSIGN_OR_RETURN(
      PgRows found,
      connection.Run("SELECT coalesce(max(version), 0)::bigint FROM schema_migrations"));
  return found.Next() ? static_cast<int>(found.Int()) : 0;
}

absl::Status CheckKnown(int version) {
  if (version <= CurrentPostgresSchemaVersion()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the database has schema version ", version, ", this server knows up to ",
                   CurrentPostgresSchemaVersion(), "; use a newer latentforge-server"));
}

}  // namespace

int CurrentPostgresSchemaVersion() { return static_cast<int>(std::size(kMigrations)); }

PgConnection::Timeouts MigrationTimeouts() {
  return {.statement = absl::Minutes(10), .lock = absl::Minutes(10)};
}

absl::Status MigratePostgres(PgConnection& connection, int version) {
  LF_ASSIGN_OR_RETURN(int found, ReadVersion(connection));
  if (found == version) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckKnown(found));
  // Before the transaction: one that is under way may not see that a table was made.
  LF_RETURN_IF_ERROR(
      connection.Run("SELECT pg_advisory_lock($1)", PgParams().Bind(kMigrationLock)).status());
  PgTransaction transaction(connection);
  // Perhaps another server did it meanwhile.
  LF_ASSIGN_OR_RETURN(found, ReadVersion(connection));
  LF_RETURN_IF_ERROR(CheckKnown(found));
  LF_RETURN_IF_ERROR(
      connection.Execute("CREATE TABLE IF NOT EXISTS schema_migrations ("
                         "version integer PRIMARY KEY, applied_time timestamptz NOT NULL)"));
  for (int step = found + 1; step <= version; ++step) {
    LF_RETURN_IF_ERROR(connection.Execute(kMigrations[step - 1]));
    LF_RETURN_IF_ERROR(
        connection
            .Run("INSERT INTO schema_migrations VALUES ($1, now())", PgParams().Bind(int64_t{step}))
            .status());
  }
  return transaction.Commit();
}

}  // namespace latentforge::service
