// A file of the statistics of a Fisher pass that outlives its job.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/safetensors.h"
#include "worker/factorize/loss_statistics.h"

namespace latentforge::convert {

inline constexpr int kStatisticsFileVersion = 1;

// What a file's statistics are of; stands in its metadata beside the format version.
struct StatisticsId {
  std::string key;     // StatisticsKey
  int64_t layers = 0;  // at least 1
  int64_t width = 0;   // n of LossStatistics, at least 1
};

// The size of such a file.
int64_t StatisticsFileBytes(const StatisticsId& id);

// Writes safetensors: for each layer l "l.counts" (tokens, sequences; I64) and the
// upper triangles of its moments, row by row, in F64 ("l.output", ...); last "sha256"
// (U8 [32]), the digest of all data before it. `load` gives one layer at a time.
// AlreadyExists when `path` is there; errors of `load`; InvalidArgument and Internal as
// CheckLossStatistics. An error may leave a partial file.
absl::Status WriteStatisticsFile(
    const std::filesystem::path& path, const StatisticsId& id,
    const std::function<absl::StatusOr<factorize::LossStatistics>(int64_t layer)>& load);

// A file that has been read once and found whole. Movable; safe for concurrent use.
class StatisticsFile {
 public:
  // DataLoss for anything but a whole file of this version and `id`; NotFound when it
  // is absent; other errors of opening and reading, which say nothing of its content.
  static absl::StatusOr<StatisticsFile> Open(const std::filesystem::path& path,
                                             const StatisticsId& id);

  // The statistics of a layer from 0 to id.layers - 1. Errors as Open.
  absl::StatusOr<factorize::LossStatistics> Layer(int64_t layer) const;

 private:
  StatisticsFile(checkpoint::SafetensorsFile file, StatisticsId id)
      : file_(std::move(file)), id_(std::move(id)) {}

  absl::Status CheckHeader() const;
  absl::Status CheckDigest() const;

  checkpoint::SafetensorsFile file_;
  StatisticsId id_;
};

}  // namespace latentforge::convert
