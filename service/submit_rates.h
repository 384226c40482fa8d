// How many jobs each tenant submits in a minute.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "service/token_bucket.h"

namespace latentforge::service {

// In memory, of one server: several servers allow as many times as much. Safe for
// concurrent use.
class SubmitRates {
 public:
  // ResourceExhausted RATE_LIMITED, with the time after which to ask again, when the tenant
  // has submitted `per_minute` already; 0: no limit. `now` is of the monotonic clock.
  absl::Status Take(const std::string& tenant, int64_t per_minute, absl::Duration now);

 private:
  // Tenants come from tokens, of which there may be any number.
  void ForgetIdle(absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  struct Entry {
    TokenBucket bucket;
    double per_minute = 0;
  };

  absl::Mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  size_t forget_above_ ABSL_GUARDED_BY(mutex_) = 1000;
};

}  // namespace latentforge::service
