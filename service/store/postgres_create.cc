#include "service/store/postgres_create.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/store/postgres_claim.h"
#include "service/store/postgres_events.h"
#include "service/store/postgres_rows.h"
#include "service/store/postgres_writes.h"
#include "service/store/record_columns.h"

namespace latentforge::service::postgres {
namespace {

// All rows of a job in one statement, for a round trip and a plan cost as much as writing them.
// What is taken already, request_id or output, makes a row fewer, of which the answer tells; the
// transaction must then be given up. It tells too whether others of the kind waited before.
std::string MakeInsert() {
  const int labels = 5 + CountColumns(StateColumns());
  const int request = labels + 2;
  const int events = request + 2;
  return absl::StrCat(
      "WITH job AS (INSERT INTO jobs (id, tenant, job, estimate) VALUES ($1, $2, $3, $4) "
      "RETURNING ordinal), request AS (INSERT INTO requests SELECT $2, $",
      request, ", ordinal, $", request + 1, " FROM job WHERE $", request,
      " <> '' ON CONFLICT DO NOTHING RETURNING ordinal), "
      "state AS (INSERT INTO job_states (version, ordinal, ",
      StateColumns(), ") SELECT 1, ordinal, ", StateParameters(5),
      " FROM job ON CONFLICT DO NOTHING RETURNING ordinal), "
      "labels AS (INSERT INTO job_labels SELECT ordinal, label.* FROM job CROSS JOIN "
      "unnest($",
      labels, "::bytea[], $", labels + 1,
      "::bytea[]) AS label), events AS (INSERT INTO events SELECT ordinal, event.* FROM job "
      "CROSS JOIN unnest($",
      events, "::bigint[], $", events + 1,
      "::bytea[]) AS event) SELECT ordinal, (SELECT count(*) FROM request), "
      "(SELECT count(*) FROM state), ",
      WaitingNeedsExist("$2", "$8"), "::integer FROM job");
}

PgParams BindNewJob(const NewJob& job) {
  PgParams params;
  params.BindText(job.record.id)
      .BindText(job.record.tenant)
      .BindBlob(FixedPart(job.record.job))
      .BindBlob(job.record.estimate.SerializeAsString());
  BindState(job.record, params);
  std::vector<std::string> keys;
  std::vector<std::string> values;
  for (const auto& [key, value] : job.record.job.labels()) {
    keys.push_back(key);
    values.push_back(value);
  }
  params.BindBlobs(keys).BindBlobs(values).BindBlob(job.request_id).BindBlob(job.request_digest);
  BindEvents(job.events, params);
  return params;
}

// A deletion of the job that had the request_id may have ended while the insert waited for it:
// only a later statement sees the tombstone.
absl::StatusOr<bool> IsBuried(PgConnection& connection, const NewJob& job) {
  LF_ASSIGN_OR_RETURN(
      PgRows buried,
      connection.RunKept("SELECT 1::bigint FROM tombstones WHERE tenant = $1 AND request_id = $2",
                         PgParams().BindText(job.record.tenant).BindBlob(job.request_id)));
  return buried.Next();
}

// A request_id that is repeated gets its job whatever the limits.
absl::Status CheckJobs(PgConnection& connection, const NewJob& job) {
  const absl::Status checked = CheckJobQuota(connection, job.record, job.limits.jobs);
  if (checked.ok() || job.request_id.empty()) return checked;
  LF_ASSIGN_OR_RETURN(
      PgRows taken,
      connection.RunKept("SELECT 1::bigint FROM requests WHERE tenant = $1 AND request_id = $2",
                         PgParams().BindText(job.record.tenant).BindBlob(job.request_id)));
  return taken.Next() ? RequestIdTakenError(job.request_id) : checked;
}

}  // namespace

absl::StatusOr<int64_t> WriteJob(PgConnection& connection, const NewJob& job) {
  static const std::string kInsert = MakeInsert();
  LF_RETURN_IF_ERROR(CheckJobs(connection, job));
  LF_ASSIGN_OR_RETURN(PgRows row, connection.RunKept(kInsert, BindNewJob(job)));
  row.Next();
  const int64_t ordinal = row.Int();
  const bool requested = row.Int() == 1;
  const bool stated = row.Int() == 1;
  const bool known_kind = row.Int() == 1;
  if (!job.request_id.empty()) {
    if (!requested) return RequestIdTakenError(job.request_id);
    LF_ASSIGN_OR_RETURN(const bool buried, IsBuried(connection, job));
    if (buried) return RequestIdTakenError(job.request_id);
  }
  // The ordinal is new, so only the output can be taken.
  if (!stated) return ExplainOutput(connection, job.record);
  if (!known_kind && job.limits.kinds > 0)
    LF_RETURN_IF_ERROR(CheckNewKind(connection, job.record, job.limits.kinds));
  return ordinal;
}

}  // namespace latentforge::service::postgres
