// What Prometheus client libraries by custom tell of their process: processor time,
// memory, open files, start. prometheus-cpp has none of it.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "absl/status/statusor.h"

namespace latentforge::service {

struct ProcessUsage {
  double cpu_seconds = 0;         // user and system
  double start_time_seconds = 0;  // since the epoch
  int64_t virtual_bytes = 0;
  int64_t resident_bytes = 0;
  int64_t open_files = 0;
  int64_t max_files = 0;  // the soft limit; 0 when there is none
};

// Reads self/stat, self/fd, self/limits and stat below `proc`, see proc(5).
// Internal names a file that is not as described there; also errors of reading.
absl::StatusOr<ProcessUsage> ReadProcessUsage(const std::filesystem::path& proc);

// Reads at each scrape; a scrape that cannot has none of these series. Safe for
// concurrent use.
class ProcessCollector final : public prometheus::Collectable {
 public:
  explicit ProcessCollector(std::filesystem::path proc = "/proc") : proc_(std::move(proc)) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::filesystem::path proc_;
};

}  // namespace latentforge::service
