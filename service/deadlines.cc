#include "service/deadlines.h"

#include "service/time_util.h"

namespace latentforge::service {

std::optional<Deadline> NextDeadline(const JobRecord& record) {
  const v1::Job& job = record.job;
  std::optional<Deadline> next;
  const auto consider = [&next](Deadline::Kind kind, absl::Time time) {
    if (!next.has_value() || time < next->time) next = Deadline{kind, time};
  };
  if (IsTerminal(job.status().state())) return next;
  if (job.has_deadline_time()) consider(Deadline::Kind::kJob, FromProto(job.deadline_time()));
  if (job.has_queue_deadline_time())
    consider(Deadline::Kind::kQueue, FromProto(job.queue_deadline_time()));
  if (job.status().state() == v1::JOB_STATE_RUNNING && job.spec().has_run_deadline())
    consider(Deadline::Kind::kRun,
             record.attempt_start_time + FromProto(job.spec().run_deadline()));
  return next;
}

}  // namespace latentforge::service
