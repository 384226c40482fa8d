// Holds a history against what the service promises (docs/operations.md, "Promises").
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tests/faults/history.h"

namespace latentforge::faults {

struct Violation {
  char promise = 0;  // its letter
  std::string what;
};

struct Bounds {
  // From the acknowledgement of a cancellation to the end of the job: the worker's grace for its
  // process, or the rest of a lost lease, and what the faults of the run add.
  absl::Duration cancel = absl::Seconds(30);
};

// Pure. Empty when every promise was kept.
std::vector<Violation> Check(const History& history, const Bounds& bounds = {});

}  // namespace latentforge::faults
