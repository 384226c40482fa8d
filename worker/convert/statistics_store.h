// Statistics of the Fisher pass that outlive their job, so that another budget of
// the same model and texts needs no calibration.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/convert/attempt.h"
#include "worker/convert/statistics_file.h"

namespace latentforge::convert {

// SHA-256 of all that the statistics depend on: program version, source, tokens,
// labels with their seed, and the type of the computation.
std::string StatisticsKey(const JobSpec& spec, const Inputs& inputs);

// The key, and the model's layers and twice its kv_width.
StatisticsId StatisticsIdOf(const JobSpec& spec, const Inputs& inputs);

// A folder of KEY.safetensors files (StatisticsFile). Other files in it are left
// alone. Safe for concurrent use, also by processes: files appear and go as a whole.
class StatisticsStore {
 public:
  // An empty folder keeps nothing. Files beyond `limit_bytes` in all are removed,
  // those first that were not used for longest.
  explicit StatisticsStore(std::filesystem::path folder, int64_t limit_bytes = int64_t{4} << 30)
      : folder_(std::move(folder)), limit_bytes_(limit_bytes) {}

  // True when there is a file for `key`, whole or not.
  bool Has(const std::string& key) const;

  // The bytes that Keep would write now.
  int64_t BytesToKeep(const StatisticsId& id) const;

  // Writes the statistics of every layer into the work folder; false when there are
  // none of `id`. A damaged file is removed and counts as none, one that cannot be read
  // or removed stays and counts as none; a log line says so. Errors are those of the
  // work folder.
  absl::StatusOr<bool> Restore(const StatisticsId& id, const WorkDir& work) const;

  // Keeps the statistics of the work folder under id.key. FailedPrecondition when they
  // alone are beyond the limit; errors of reading the work folder and of writing.
  absl::Status Keep(const StatisticsId& id, const WorkDir& work) const;

 private:
  std::filesystem::path PathOf(const std::string& key) const {
    return folder_ / (key + ".safetensors");
  }
  void RemoveAbandoned() const;
  void RemoveOldest(const std::filesystem::path& keep) const;

  std::filesystem::path folder_;
  int64_t limit_bytes_;
};

}  // namespace latentforge::convert
