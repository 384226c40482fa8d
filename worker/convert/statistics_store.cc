#include "worker/convert/statistics_store.h"

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {

std::string StatisticsKey(const JobSpec& spec, const Inputs& inputs) {
  const bool sampled = spec.labels == calibrate::FisherLabels::kSampled;
  const auto* ids = reinterpret_cast<const char*>(inputs.sequences.ids.data());
  return Sha256Hex(absl::StrCat(
      kVersion, "\n", inputs.source_digest, "\n", static_cast<int>(spec.dtype), "\n",
      sampled ? absl::StrCat("sampled ", spec.seed) : "text", "\n", inputs.sequences.length, "\n",
      Sha256Hex({ids, inputs.sequences.ids.size() * sizeof(int32_t)})));
}

StatisticsId StatisticsIdOf(const JobSpec& spec, const Inputs& inputs) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  return {StatisticsKey(spec, inputs), config.num_layers, 2 * config.kv_width()};
}

int64_t StatisticsStore::BytesToKeep(const StatisticsId& id) const {
  const int64_t bytes = StatisticsFileBytes(id);
  return folder_.none() || Has(id.key) || bytes > folder_.limit_bytes() ? 0 : bytes;
}

absl::StatusOr<bool> StatisticsStore::Restore(const StatisticsId& id, const WorkDir& work) const {
  if (folder_.none()) return false;
  const std::filesystem::path path = folder_.PathOf(id.key, Kept::kStatistics);
  const auto unusable = [&](const absl::Status& status) {
    if (absl::IsDataLoss(status)) {
      folder_.Remove(id.key, Kept::kStatistics, Severity::kWarning, status.message());
    } else if (!absl::IsNotFound(status)) {
      Log(Severity::kWarning, "kept statistics cannot be read",
          {{"file", path.string()}, {"error", std::string(status.message())}});
    }
    return false;
  };
  const absl::StatusOr<StatisticsFile> file = StatisticsFile::Open(path, id);
  if (!file.ok()) return unusable(file.status());
  for (int64_t layer = 0; layer < id.layers; ++layer) {
    const absl::StatusOr<factorize::LossStatistics> statistics = file->Layer(layer);
    if (!statistics.ok()) return unusable(statistics.status());
    LF_RETURN_IF_ERROR(SaveLossStatistics(LossStatisticsPath(work, layer), *statistics));
  }
  folder_.MarkUsed(id.key, Kept::kStatistics);
  return true;
}

absl::Status StatisticsStore::Keep(const StatisticsId& id, const WorkDir& work) const {
  if (folder_.none()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const std::filesystem::path temporary,
                      folder_.Begin(id.key, Kept::kStatistics, StatisticsFileBytes(id)));
  const absl::Status written = WriteStatisticsFile(temporary, id, [&](int64_t layer) {
    return LoadLossStatistics(LossStatisticsPath(work, layer), id.width);
  });
  if (written.ok()) return folder_.Finish(id.key, Kept::kStatistics);
  LF_RETURN_IF_ERROR(folder_.Abandon(id.key, Kept::kStatistics));
  return written;
}

}  // namespace latentforge::convert
