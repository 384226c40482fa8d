// How long a worker may believe in its lease.
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace latentforge::agent {

// The server counts a lease from the moment it handles a call, which is after
// the worker sent it: counting from the sending errs on the safe side, and the
// margin leaves time to kill the process before the server leases the job again.
// Pure; times are the clock's monotonic time. Not safe for concurrent use.
class LeaseTimer {
 public:
  LeaseTimer(absl::Duration sent, absl::Duration lease) { Extend(sent, lease); }

  void Extend(absl::Duration sent, absl::Duration lease) {
    lease = std::clamp(lease, absl::Milliseconds(100), absl::Hours(24));
    const absl::Duration margin = std::clamp(lease / 10, absl::Milliseconds(20), absl::Seconds(3));
    deadline_ = std::max(deadline_, sent + lease - margin);
  }

  // From here on the process must not run.
  absl::Duration deadline() const { return deadline_; }

 private:
  absl::Duration deadline_;
};

}  // namespace latentforge::agent
