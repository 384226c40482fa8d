#include "bench/service/latencies.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace latentforge::bench {

void Latencies::Add(absl::Duration time) {
  absl::MutexLock lock(&mutex_);
  milliseconds_.push_back(absl::ToDoubleMilliseconds(time));
}

void Latencies::AddError() {
  absl::MutexLock lock(&mutex_);
  ++errors_;
}

int64_t Latencies::count() const {
  absl::MutexLock lock(&mutex_);
  return std::ssize(milliseconds_);
}

Json Latencies::Summary() const {
  absl::MutexLock lock(&mutex_);
  Json summary = {{"count", milliseconds_.size()}, {"errors", errors_}};
  if (milliseconds_.empty()) return summary;
  std::vector<double> sorted = milliseconds_;
  std::sort(sorted.begin(), sorted.end());
  // The smallest time that at least this share of all is not above.
  const auto at = [&](double share) {
    const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
    return sorted[std::max<size_t>(rank, 1) - 1];
  };
  summary["p50_ms"] = at(0.5);
  summary["p99_ms"] = at(0.99);
  summary["max_ms"] = sorted.back();
  return summary;
}

}  // namespace latentforge::bench
