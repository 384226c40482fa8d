#include "service/store/postgres_writes.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/store/postgres_claim.h"
#include "service/store/postgres_events.h"
#include "service/store/postgres_rows.h"
#include "service/store/state_sets.h"

namespace latentforge::service::postgres {
namespace {

// OutputInUse when an active job other than this one has its output; another tenant's is not named.
absl::Status CheckOutputFree(PgConnection& connection, const JobRecord& record) {
  static const std::string kSelect = absl::StrCat(
      "SELECT id, state, tenant FROM jobs JOIN job_states USING (ordinal) "
      "WHERE sha256(output_path) = sha256($1) "
      "AND output_path <> '' AND id <> $2 AND ",
      kGoesOn);
  LF_ASSIGN_OR_RETURN(
      PgRows holder,
      connection.RunKept(kSelect, PgParams().BindBlob(record.output_path).BindText(record.id)));
  if (!holder.Next()) return absl::OkStatus();
  const std::string id = holder.Text();
  const auto state = static_cast<v1::JobState>(holder.Int());
  const bool own = holder.Text() == record.tenant;
  return OutputInUseError(record.output_path, own ? id : "", state);
}

// Until the transaction ends no other one adds to what the tenant has waiting.
absl::Status LockQueueOf(PgConnection& connection, const std::string& tenant) {
  return connection
      .RunKept("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", PgParams().BindText(tenant))
      .status();
}

// Of a job that is not yet waiting.
absl::Status CheckKinds(PgConnection& connection, const JobRecord& record, int64_t max_kinds) {
  if (max_kinds == 0) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const bool known, HasWaitingNeeds(connection, record.tenant, record.needs));
  return known ? absl::OkStatus() : CheckNewKind(connection, record, max_kinds);
}

// 0 rows changed: the job is gone, or has another version.
absl::Status ExplainMiss(PgConnection& connection, absl::string_view id, int64_t expected_version) {
  LF_RETURN_IF_ERROR(OrdinalOf(connection, id).status());
  return ConcurrentTransitionError(id, expected_version);
}

}  // namespace

absl::StatusOr<int64_t> OrdinalOf(PgConnection& connection, absl::string_view id) {
  LF_ASSIGN_OR_RETURN(PgRows rows, connection.RunKept("SELECT ordinal FROM jobs WHERE id = $1",
                                                      PgParams().BindText(id)));
  if (!rows.Next()) return JobNotFoundError(id);
  return rows.Int();
}

absl::Status ExplainOutput(PgConnection& connection, const JobRecord& record) {
  LF_RETURN_IF_ERROR(CheckOutputFree(connection, record));
  return MakeError(absl::StatusCode::kAborted, kStoreBusy, "the output has just become free");
}

absl::Status CheckJobQuota(PgConnection& connection, const JobRecord& record, int64_t max_jobs) {
  if (max_jobs == 0) return absl::OkStatus();
  LF_RETURN_IF_ERROR(LockQueueOf(connection, record.tenant));
  LF_ASSIGN_OR_RETURN(const TenantUse use, ReadUse(connection, record.tenant));
  return CheckQueueQuota(record.tenant, use, max_jobs);
}

absl::Status CheckNewKind(PgConnection& connection, const JobRecord& record, int64_t max_kinds) {
  LF_RETURN_IF_ERROR(LockQueueOf(connection, record.tenant));
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> waiting,
                      ReadWaitingNeeds(connection, record.tenant));
  return CheckKindQuota(record.tenant, waiting, record.needs, max_kinds);
}

absl::Status WriteUpdate(PgConnection& connection, const JobUpdate& update) {
  const JobRecord& record = update.record;
  // A job enters the active states by the queue alone.
  if (record.job.status().state() == v1::JOB_STATE_QUEUED)
    LF_RETURN_IF_ERROR(CheckOutputFree(connection, record));
  LF_RETURN_IF_ERROR(CheckJobQuota(connection, record, update.limits.jobs));
  LF_RETURN_IF_ERROR(CheckKinds(connection, record, update.limits.kinds));
  static const std::string kUpdate = UpdateState();
  static const std::string kPutAttempt = PutAttemptSql();
  const absl::StatusOr<PgRows> changed = connection.RunKept(
      kUpdate, BindMutable(record).Bind(update.expected_version).Bind(record.ordinal));
  // The only thing that an update can collide with.
  if (absl::IsAlreadyExists(changed.status())) {
    return MakeError(absl::StatusCode::kAborted, kStoreBusy, "another job has just got the output");
  }
  LF_RETURN_IF_ERROR(changed.status());
  if (changed->count() != 1) return ExplainMiss(connection, record.id, update.expected_version);
  LF_RETURN_IF_ERROR(AppendEvents(connection, record.ordinal, update.events));
  if (!update.attempt.has_value()) return absl::OkStatus();
  return connection.RunKept(kPutAttempt, BindAttempt(record.ordinal, *update.attempt)).status();
}

absl::Status WriteDeletion(PgConnection& connection, const JobDeletion& deletion) {
  // First the row that has the version: it is looked at again once it is locked.
  LF_ASSIGN_OR_RETURN(
      PgRows removed,
      connection.Run("DELETE FROM job_states USING jobs WHERE jobs.ordinal = job_states.ordinal "
                     "AND id = $1 AND version = $2 RETURNING job_states.ordinal",
                     PgParams().BindText(deletion.id).Bind(deletion.expected_version)));
  if (!removed.Next()) return ExplainMiss(connection, deletion.id, deletion.expected_version);
  const int64_t ordinal = removed.Int();
  LF_RETURN_IF_ERROR(
      connection
          .Run("INSERT INTO tombstones SELECT tenant, request_id, $2, digest, $3 FROM requests "
               "WHERE ordinal = $1",
               PgParams().Bind(ordinal).BindText(deletion.id).Bind(deletion.delete_time))
          .status());
  return connection.Run("DELETE FROM jobs WHERE ordinal = $1", PgParams().Bind(ordinal)).status();
}

}  // namespace latentforge::service::postgres
