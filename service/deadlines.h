// Which deadline of a job comes next. Pure.
#pragma once

#include <optional>

#include "absl/time/time.h"
#include "service/job_record.h"

namespace latentforge::service {

struct Deadline {
  enum class Kind {
    kJob,    // spec.deadline, from the job's creation
    kQueue,  // spec.queue_deadline, until a worker takes the job
    kRun,    // spec.run_deadline, of the running attempt
  };
  Kind kind = Kind::kJob;
  absl::Time time;
};

// The earliest one; nullopt when there is none or the job has ended. A running
// attempt that is asked to stop has no more limit than its lease and the job's.
std::optional<Deadline> NextDeadline(const JobRecord& record);

}  // namespace latentforge::service
