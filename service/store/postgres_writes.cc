#include "service/store/postgres_writes.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/store/postgres_claim.h"
#include "service/store/postgres_events.h"
#include "service/store/postgres_rows.h"
#include "service/store/state_sets.h"

namespace latentforge::service::postgres {
namespace {

absl::Status PutLabels(PgConnection& connection, int64_t ordinal, const v1::Job& job) {
  for (const auto& [key, value] : job.labels()) {
    LF_RETURN_IF_ERROR(connection
                           .Run("INSERT INTO job_labels VALUES ($1, $2, $3)",
                                PgParams().Bind(ordinal).BindBlob(key).BindBlob(value))
                           .status());
  }
  return absl::OkStatus();
}

// False when the request_id is taken. Another Create with it, or a deletion of its job, that is
// under way is waited for; so tombstones are looked at afterwards.
absl::StatusOr<bool> PutRequest(PgConnection& connection, int64_t ordinal, const NewJob& job) {
  if (job.request_id.empty()) return true;
  LF_ASSIGN_OR_RETURN(
      const PgRows put,
      connection.Run("INSERT INTO requests VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                     PgParams()
                         .BindText(job.record.tenant)
                         .BindBlob(job.request_id)
                         .Bind(ordinal)
                         .BindBlob(job.request_digest)));
  if (put.count() != 1) return false;
  LF_ASSIGN_OR_RETURN(
      PgRows buried,
      connection.Run("SELECT 1::bigint FROM tombstones "
                     "WHERE tenant = $1 AND request_id = $2",
                     PgParams().BindText(job.record.tenant).BindBlob(job.request_id)));
  return !buried.Next();
}

// OutputInUse when an active job other than this one has its output; another tenant's is not named.
absl::Status CheckOutputFree(PgConnection& connection, const JobRecord& record) {
  LF_ASSIGN_OR_RETURN(
      PgRows holder,
      connection.Run(
          absl::StrCat("SELECT id, state, tenant FROM jobs JOIN job_states USING (ordinal) "
                       "WHERE sha256(output_path) = sha256($1) "
                       "AND output_path <> '' AND id <> $2 AND ",
                       kGoesOn),
          PgParams().BindBlob(record.output_path).BindText(record.id)));
  if (!holder.Next()) return absl::OkStatus();
  const std::string id = holder.Text();
  const auto state = static_cast<v1::JobState>(holder.Int());
  const bool own = holder.Text() == record.tenant;
  return OutputInUseError(record.output_path, own ? id : "", state);
}

// Another one had the output a moment ago: the transaction is worth another try.
absl::Status ExplainOutput(PgConnection& connection, const JobRecord& record) {
  LF_RETURN_IF_ERROR(CheckOutputFree(connection, record));
  return MakeError(absl::StatusCode::kAborted, kStoreBusy, "the output has just become free");
}

// Until the transaction ends no other one adds to what the tenant has waiting.
absl::Status CheckQuota(PgConnection& connection, const std::string& tenant, int64_t max_waiting) {
  if (max_waiting == 0) return absl::OkStatus();
  LF_RETURN_IF_ERROR(
      connection
          .Run("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", PgParams().BindText(tenant))
          .status());
  LF_ASSIGN_OR_RETURN(const TenantUse use, ReadUse(connection, tenant));
  return CheckQueueQuota(tenant, use, max_waiting);
}

// 0 rows changed: the job is gone, or has another version.
absl::Status ExplainMiss(PgConnection& connection, absl::string_view id, int64_t expected_version) {
  LF_RETURN_IF_ERROR(OrdinalOf(connection, id).status());
  return ConcurrentTransitionError(id, expected_version);
}

}  // namespace

absl::StatusOr<int64_t> OrdinalOf(PgConnection& connection, absl::string_view id) {
  LF_ASSIGN_OR_RETURN(PgRows rows, connection.Run("SELECT ordinal FROM jobs WHERE id = $1",
                                                  PgParams().BindText(id)));
  if (!rows.Next()) return JobNotFoundError(id);
  return rows.Int();
}

absl::StatusOr<int64_t> WriteJob(PgConnection& connection, const NewJob& job) {
  LF_ASSIGN_OR_RETURN(PgRows inserted, connection.Run(InsertJob(), BindJob(job.record)));
  inserted.Next();
  const int64_t ordinal = inserted.Int();
  LF_ASSIGN_OR_RETURN(const bool first, PutRequest(connection, ordinal, job));
  if (!first) return RequestIdTakenError(job.request_id);
  LF_RETURN_IF_ERROR(CheckQuota(connection, job.record.tenant, job.max_waiting));
  LF_ASSIGN_OR_RETURN(const PgRows state, connection.Run(InsertState() + " ON CONFLICT DO NOTHING",
                                                         BindState(ordinal, job.record)));
  // The ordinal is new, so only the output can be taken.
  if (state.count() != 1) return ExplainOutput(connection, job.record);
  LF_RETURN_IF_ERROR(PutLabels(connection, ordinal, job.record.job));
  LF_RETURN_IF_ERROR(AppendEvents(connection, ordinal, job.events));
  return ordinal;
}

absl::Status WriteUpdate(PgConnection& connection, const JobUpdate& update) {
  const JobRecord& record = update.record;
  // A job enters the active states by the queue alone.
  if (record.job.status().state() == v1::JOB_STATE_QUEUED)
    LF_RETURN_IF_ERROR(CheckOutputFree(connection, record));
  LF_RETURN_IF_ERROR(CheckQuota(connection, record.tenant, update.max_waiting));
  const absl::StatusOr<PgRows> changed = connection.Run(
      UpdateState(), BindMutable(record).Bind(update.expected_version).Bind(record.ordinal));
  // The only thing that an update can collide with.
  if (absl::IsAlreadyExists(changed.status())) {
    return MakeError(absl::StatusCode::kAborted, kStoreBusy, "another job has just got the output");
  }
  LF_RETURN_IF_ERROR(changed.status());
  if (changed->count() != 1) return ExplainMiss(connection, record.id, update.expected_version);
  LF_RETURN_IF_ERROR(AppendEvents(connection, record.ordinal, update.events));
  if (!update.attempt.has_value()) return absl::OkStatus();
  return connection.Run(PutAttemptSql(), BindAttempt(record.ordinal, *update.attempt)).status();
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
