#include "service/store/sqlite_rows.h"

#include "absl/strings/str_cat.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

// Written once, at creation.
constexpr char kFixed[] = "id, tenant, job, estimate, output_path, needs_cuda, deadline_time";

constexpr char kMutable[] =
    "state, status, last_sequence, update_time, end_time, lease_epoch, completed_epoch, "
    "counted_attempts, attempt_sequence, attempt_start_time, lease_expire_time, queue_time, "
    "claimable_time, progress_event_time, progress_event_percent";

void BindOptional(bool present, const google::protobuf::Timestamp& time, Statement& statement) {
  if (present) {
    statement.Bind(FromProto(time));
  } else {
    statement.BindNull();
  }
}

// What of the job never changes; the rest has columns of its own, so that a
// heartbeat does not write the specification again.
std::string FixedPart(const v1::Job& job) {
  v1::Job fixed = job;
  fixed.clear_status();
  fixed.clear_update_time();
  fixed.clear_end_time();
  fixed.clear_last_sequence();
  fixed.clear_tenant();
  return fixed.SerializeAsString();
}

}  // namespace

std::string SelectJobs() {
  return absl::StrCat("SELECT ordinal, version, ", kFixed, ", ", kMutable, " FROM jobs ");
}

std::string InsertJob() {
  return absl::StrCat("INSERT INTO jobs (version, ", kFixed, ", ", kMutable,
                      ") VALUES (1, ?,?,?,?,?,?,?, ?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
}

std::string UpdateJob() {
  return absl::StrCat("UPDATE jobs SET version = version + 1, (", kMutable,
                      ") = (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) WHERE version = ? AND id = ?");
}

void BindJob(const JobRecord& record, Statement& statement) {
  statement.BindText(record.id)
      .BindText(record.tenant)
      .BindBlob(FixedPart(record.job))
      .BindBlob(record.estimate.SerializeAsString())
      .BindText(record.output_path)
      .Bind(int64_t{record.needs_cuda});
  BindOptional(record.job.has_deadline_time(), record.job.deadline_time(), statement);
  BindMutable(record, statement);
}

void BindMutable(const JobRecord& record, Statement& statement) {
  statement.Bind(int64_t{record.job.status().state()})
      .BindBlob(record.job.status().SerializeAsString())
      .Bind(record.job.last_sequence())
      .Bind(FromProto(record.job.update_time()));
  BindOptional(record.job.has_end_time(), record.job.end_time(), statement);
  statement.Bind(record.lease_epoch)
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

absl::StatusOr<JobRecord> ReadJob(Statement& row) {
  JobRecord record;
  record.ordinal = row.Int();
  record.version = row.Int();
  record.id = row.Text();
  record.tenant = row.Text();
  bool parsed = record.job.ParseFromString(row.Blob());
  parsed = record.estimate.ParseFromString(row.Blob()) && parsed;
  record.job.set_tenant(record.tenant);
  record.output_path = row.Text();
  record.needs_cuda = row.Int() != 0;
  row.Int();  // deadline_time and state are there for the indexes
  row.Int();
  parsed = record.job.mutable_status()->ParseFromString(row.Blob()) && parsed;
  record.job.set_last_sequence(row.Int());
  *record.job.mutable_update_time() = ToProto(row.Time());
  if (row.NextIsNull()) {
    row.Int();
  } else {
    *record.job.mutable_end_time() = ToProto(row.Time());
  }
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

}  // namespace latentforge::service
