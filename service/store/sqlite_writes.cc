#include "service/store/sqlite_writes.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/store/sqlite_claim.h"
#include "service/store/sqlite_events.h"
#include "service/store/sqlite_rows.h"
#include "service/store/state_sets.h"

namespace latentforge::service::sqlite {
namespace {

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

absl::Status CheckQuota(Database& db, const JobRecord& record, const QueueLimits& limits) {
  if (limits.jobs > 0) {
    LF_ASSIGN_OR_RETURN(const TenantUse use, ReadUse(db, record.tenant));
    LF_RETURN_IF_ERROR(CheckQueueQuota(record.tenant, use, limits.jobs));
  }
  return CheckKinds(db, record, limits.kinds);
}

// 0 rows changed: the job is gone, or has another version.
absl::Status ExplainMiss(Database& db, absl::string_view id, int64_t expected_version) {
  LF_RETURN_IF_ERROR(OrdinalOf(db, id).status());
  return ConcurrentTransitionError(id, expected_version);
}

}  // namespace

absl::StatusOr<int64_t> WriteJob(Database& db, const NewJob& job) {
  LF_RETURN_IF_ERROR(CheckFree(db, job));
  LF_RETURN_IF_ERROR(CheckQuota(db, job.record, job.limits));
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

absl::StatusOr<JobRecord> WriteUpdate(Database& db, const JobUpdate& update) {
  // A job enters the active states by the queue alone.
  if (update.record.job.status().state() == v1::JOB_STATE_QUEUED)
    LF_RETURN_IF_ERROR(CheckOutputFree(db, update.record));
  LF_RETURN_IF_ERROR(CheckQuota(db, update.record, update.limits));
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

absl::Status WriteDeletion(Database& db, const JobDeletion& deletion) {
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
}

}  // namespace latentforge::service::sqlite
