#include "service/store/postgres_rows.h"

#include "absl/strings/str_cat.h"
#include "service/time_util.h"

namespace latentforge::service::postgres {
namespace {

// What a transition can change.
constexpr char kMutable[] =
    "state, status, last_sequence, update_time, end_time, lease_epoch, completed_epoch, "
    "counted_attempts, attempt_sequence, attempt_start_time, lease_expire_time, queue_time, "
    "claimable_time, progress_event_time, progress_event_percent";
constexpr int kMutableCount = 15;

// "$3,$4,$5" for (3, 3).
std::string Parameters(int first, int count) {
  std::string list;
  for (int i = first; i < first + count; ++i) absl::StrAppend(&list, i > first ? "," : "", "$", i);
  return list;
}

void BindOptional(bool present, const google::protobuf::Timestamp& time, PgParams& params) {
  if (present) {
    params.Bind(FromProto(time));
  } else {
    params.BindNull();
  }
}

// What of the job never changes.
std::string FixedPart(const v1::Job& job) {
  v1::Job fixed = job;
  fixed.clear_status();
  fixed.clear_update_time();
  fixed.clear_end_time();
  fixed.clear_last_sequence();
  return fixed.SerializeAsString();
}

void AppendMutable(const JobRecord& record, PgParams& params) {
  params.Bind(int64_t{record.job.status().state()})
      .BindBlob(record.job.status().SerializeAsString())
      .Bind(record.job.last_sequence())
      .Bind(FromProto(record.job.update_time()));
  BindOptional(record.job.has_end_time(), record.job.end_time(), params);
  params.Bind(record.lease_epoch)
      .Bind(record.completed_epoch)
      .Bind(int64_t{record.counted_attempts})
      .Bind(record.attempt_sequence)
      .Bind(record.attempt_start_time)
      .Bind(record.lease_expire_time)
      .Bind(record.queue_time)
      .Bind(record.claimable_time)
      .Bind(record.progress_event_time)
      .Bind(record.progress_event_percent);
}

}  // namespace

std::string SelectJobs() {
  return absl::StrCat("SELECT ordinal, version, id, job, estimate, output_path, needs_cuda, ",
                      kMutable, " FROM jobs JOIN job_states USING (ordinal) ");
}

std::string InsertJob() {
  return "INSERT INTO jobs (id, job, estimate) VALUES ($1, $2, $3) RETURNING ordinal";
}

std::string InsertState() {
  return absl::StrCat(
      "INSERT INTO job_states (version, ordinal, output_path, needs_cuda, "
      "deadline_time, ",
      kMutable, ") VALUES (1, ", Parameters(1, 4 + kMutableCount), ")");
}

std::string UpdateState() {
  return absl::StrCat("UPDATE job_states SET version = version + 1, (", kMutable, ") = (",
                      Parameters(1, kMutableCount), ") WHERE version = $", kMutableCount + 1,
                      " AND ordinal = $", kMutableCount + 2);
}

PgParams BindJob(const JobRecord& record) {
  return PgParams()
      .BindText(record.id)
      .BindBlob(FixedPart(record.job))
      .BindBlob(record.estimate.SerializeAsString());
}

PgParams BindState(int64_t ordinal, const JobRecord& record) {
  PgParams params;
  params.Bind(ordinal).BindBlob(record.output_path).Bind(int64_t{record.needs_cuda});
  BindOptional(record.job.has_deadline_time(), record.job.deadline_time(), params);
  AppendMutable(record, params);
  return params;
}

PgParams BindMutable(const JobRecord& record) {
  PgParams params;
  AppendMutable(record, params);
  return params;
}

absl::StatusOr<JobRecord> ReadJob(PgRows& row) {
  JobRecord record;
  record.ordinal = row.Int();
  record.version = row.Int();
  record.id = row.Text();
  bool parsed = record.job.ParseFromString(row.Blob());
  parsed = record.estimate.ParseFromString(row.Blob()) && parsed;
  record.output_path = row.Blob();
  record.needs_cuda = row.Int() != 0;
  row.Int();  // the state is there for the indexes
  parsed = record.job.mutable_status()->ParseFromString(row.Blob()) && parsed;
  record.job.set_last_sequence(row.Int());
  *record.job.mutable_update_time() = ToProto(row.Time());
  const bool ended = !row.NextIsNull();
  const absl::Time end_time = row.Time();
  if (ended) *record.job.mutable_end_time() = ToProto(end_time);
  record.lease_epoch = row.Int();
  record.completed_epoch = row.Int();
  record.counted_attempts = static_cast<int32_t>(row.Int());
  record.attempt_sequence = row.Int();
  record.attempt_start_time = row.Time();
  record.lease_expire_time = row.Time();
  record.queue_time = row.Time();
  record.claimable_time = row.Time();
  record.progress_event_time = row.Time();
  record.progress_event_percent = row.Double();
  if (!parsed)
    return absl::DataLossError(absl::StrCat("job ", record.id, " is corrupt in the database"));
  return record;
}

}  // namespace latentforge::service::postgres
