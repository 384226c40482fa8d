// Growing pauses between tries.
#pragma once

#include <algorithm>
#include <functional>

#include "absl/time/time.h"

namespace latentforge::agent {

// A number in [0, 1). Called from several threads at once.
using Random = std::function<double()>;

// Exponential with full jitter above the half: each pause is drawn from
// [limit / 2, limit), and the limit doubles up to `longest`. Not safe for
// concurrent use.
class Backoff {
 public:
  Backoff(absl::Duration first, absl::Duration longest, Random random)
      : first_(first), longest_(longest), limit_(first), random_(std::move(random)) {}

  absl::Duration Next() {
    const absl::Duration pause = limit_ * (0.5 + 0.5 * random_());
    limit_ = std::min(limit_ * 2, longest_);
    return pause;
  }

  void Reset() { limit_ = first_; }

 private:
  const absl::Duration first_;
  const absl::Duration longest_;
  absl::Duration limit_;
  Random random_;
};

}  // namespace latentforge::agent
