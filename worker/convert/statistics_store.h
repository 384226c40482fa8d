// Statistics of the Fisher pass that outlive their job, so that another budget of
// the same model and texts needs no calibration.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/convert/attempt.h"

namespace latentforge::convert {

// SHA-256 of all that the statistics depend on: program version, source, tokens,
// labels with their seed, and the type of the computation.
std::string StatisticsKey(const JobSpec& spec, const Inputs& inputs);

// A folder of KEY.safetensors files: for each layer l the upper triangles of its
// moments in fp64 ("l.output", ...). Safe for concurrent use, also by processes:
// files appear and go as a whole.
class StatisticsStore {
 public:
  // An empty folder keeps nothing. Files beyond `limit_bytes` in all are removed,
  // those first that were not used for longest.
  explicit StatisticsStore(std::filesystem::path folder, int64_t limit_bytes = int64_t{4} << 30)
      : folder_(std::move(folder)), limit_bytes_(limit_bytes) {}

  // Writes the statistics of every layer into the work folder; false when there are
  // none under `key`. A file that cannot be used is removed and counts as none.
  // Errors are those of the work folder.
  absl::StatusOr<bool> Restore(const std::string& key, const WorkDir& work, int64_t layers) const;

  // Keeps the statistics of the work folder under `key`.
  absl::Status Keep(const std::string& key, const WorkDir& work,
                    const checkpoint::ModelConfig& config) const;

 private:
  std::filesystem::path PathOf(const std::string& key) const {
    return folder_ / (key + ".safetensors");
  }
  void RemoveOldest(const std::filesystem::path& keep) const;

  std::filesystem::path folder_;
  int64_t limit_bytes_;
};

}  // namespace latentforge::convert
