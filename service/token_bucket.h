// How often something may happen.
#pragma once

#include "absl/time/time.h"

namespace latentforge::service {

// Holds at most a minute's worth of tokens, which it has at first, and gets them back evenly.
// The time is passed in, by a monotonic clock; one that goes backwards gives nothing. A plain
// value.
class TokenBucket {
 public:
  // Takes a token when there is one, and returns zero; else how long until there is one.
  // `per_minute`, at least 1, may be another one at each call.
  absl::Duration Take(double per_minute, absl::Duration now);

  // Whether it is full: then a new one is as good.
  bool IsFull(double per_minute, absl::Duration now) const;

 private:
  double TokensAt(double per_minute, absl::Duration now) const;

  double spent_ = 0;  // of a minute's worth
  absl::Duration last_ = -absl::InfiniteDuration();
};

}  // namespace latentforge::service
