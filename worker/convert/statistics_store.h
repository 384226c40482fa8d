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
#include "worker/convert/kept_folder.h"
#include "worker/convert/statistics_file.h"

namespace latentforge::convert {

// SHA-256 of all that the statistics depend on: program version, source, tokens,
// labels with their seed, and the type of the computation.
std::string StatisticsKey(const JobSpec& spec, const Inputs& inputs);

// The key, and the model's layers and twice its kv_width.
StatisticsId StatisticsIdOf(const JobSpec& spec, const Inputs& inputs);

// The files KEY.safetensors (StatisticsFile) of a KeptFolder. Safe for concurrent use, also by
// processes.
class StatisticsStore {
 public:
  explicit StatisticsStore(KeptFolder folder) : folder_(std::move(folder)) {}

  // True when there is a file for `key`, whole or not.
  bool Has(const std::string& key) const { return folder_.Has(key, Kept::kStatistics); }

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
  KeptFolder folder_;
};

}  // namespace latentforge::convert
