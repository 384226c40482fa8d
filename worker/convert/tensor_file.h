// Small safetensors files of the scratch folder: statistics and factors.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "worker/factorize/loss_statistics.h"
#include "worker/factorize/statistics.h"

namespace latentforge::convert {

using TensorMap = std::map<std::string, at::Tensor>;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Writes the defined ones of `tensors` (F64, F32, F16, BF16) under a temporary
// name, syncs it unless it need not outlive the machine, and renames: `path` is whole or absent.
// ResourceExhausted: disk full.
absl::Status SaveTensors(const std::filesystem::path& path, const NamedTensors& tensors,
                         Durability durability = Durability::kMachine);

// Every tensor of a file, copied into memory. NotFound when it is absent. A file that is
// not as SaveTensors wrote it is removed, so that the next attempt makes it again, and
// gives DataLoss; one that cannot be read stays, with the error of reading.
absl::StatusOr<TensorMap> LoadTensors(const std::filesystem::path& path);

// Removes a scratch file that is not as it was written, so that the next attempt makes it again:
// DataLoss CHECKPOINT_CORRUPT with `problem`, or the error of removing.
absl::Status RemoveDamaged(const std::filesystem::path& path, absl::string_view problem);

// The statistics of one layer. A file without counts, with values that are not finite or,
// for LossStatistics, not as CheckLossStatistics(statistics, n) wants it counts as damaged:
// LoadTensors.
absl::Status SaveStatistics(const std::filesystem::path& path,
                            const factorize::LayerStatistics& statistics);
absl::StatusOr<factorize::LayerStatistics> LoadStatistics(const std::filesystem::path& path);
absl::Status SaveLossStatistics(const std::filesystem::path& path,
                                const factorize::LossStatistics& statistics);
absl::StatusOr<factorize::LossStatistics> LoadLossStatistics(const std::filesystem::path& path,
                                                             int64_t n);

}  // namespace latentforge::convert
