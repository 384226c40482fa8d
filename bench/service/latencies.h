// Times of many calls, and what benchmarks say of them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/json.h"

namespace latentforge::bench {

// Safe for concurrent use.
class Latencies {
 public:
  void Add(absl::Duration time);
  void AddError();
  int64_t count() const;

  // {"count", "errors", "p50_ms", "p99_ms", "max_ms"}; the times are absent without any.
  Json Summary() const;

 private:
  mutable absl::Mutex mutex_;
  std::vector<double> milliseconds_ ABSL_GUARDED_BY(mutex_);
  int64_t errors_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace latentforge::bench
