#include "worker/convert/disk_space.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/low_rank_layer.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/statistics_store.h"
#include "worker/factorize/preconditioner.h"

namespace latentforge::convert {
namespace {

// Headers, tokenizer, state and rounding.
constexpr int64_t kSlackBytes = int64_t{32} << 20;

// The folder, or the nearest above it that is there.
std::filesystem::path Existing(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::path existing = std::filesystem::absolute(folder);
  while (!std::filesystem::exists(existing, error) && existing.has_relative_path()) {
    existing = existing.parent_path();
  }
  return existing;
}

// What the files of a folder take on its disk.
int64_t HeldBytes(const std::filesystem::path& folder) {
  int64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    struct stat status;
    if (lstat(entry->path().c_str(), &status) == 0 && S_ISREG(status.st_mode)) {
      bytes += int64_t(status.st_blocks) * 512;
    }
  }
  return bytes;
}

// What is kept for later jobs on the disk of the scratch folder.
int64_t KeptBytes(const Attempt& attempt, const Inputs& inputs) {
  if (!attempt.spec.factorization.loss_aware || attempt.statistics.empty()) return 0;
  struct stat scratch;
  struct stat kept;
  if (stat(Existing(attempt.work.path()).c_str(), &scratch) != 0 ||
      stat(Existing(attempt.statistics).c_str(), &kept) != 0 || scratch.st_dev != kept.st_dev) {
    return 0;
  }
  return StatisticsStore(KeptFolder(attempt.statistics))
      .BytesToKeep(StatisticsIdOf(attempt.spec, inputs));
}

// Of one layer at most: masters, two moments and the best weights in fp32, twice while a new
// state takes the place of the old one, and the healed ones.
int64_t HealingBytes(const Attempt& attempt, int64_t d, int64_t m, int64_t q) {
  if (!attempt.spec.healing) return 0;
  const double budget = attempt.spec.max_perplexity_ratio > 0 ? 1 : attempt.spec.kv_budget;
  const int64_t factors = int64_t(std::ceil(budget * double(2 * m) * double(d + 2 * m)));
  const int64_t others = attempt.spec.healing->attention ? 2 * q * d : 0;
  return 4 * (factors + others) * (2 * 4 + 1);
}

// The inputs of a layer and of the next one in both models; the first layer's are embeddings.
int64_t AnchorStates(const Attempt& attempt, int64_t layers) {
  if (!attempt.spec.factorization.anchored) return 0;
  std::error_code error;
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (!std::filesystem::exists(FactorsPath(attempt.work, layer), error)) {
      return 2 * std::min<int64_t>(2, layers - 1);
    }
  }
  return 0;
}

// Moments of one layer in fp64, and its maps; the inputs of two layers.
int64_t LowRankBytes(const Attempt& attempt, const checkpoint::ModelConfig& config,
                     int64_t hidden) {
  const int64_t d = config.hidden_size;
  const int64_t q = config.q_width();
  const int64_t f = config.intermediate_size;
  const bool stored = !attempt.spec.low_rank->compressed_activations;
  const bool wide = NeedsOf(*attempt.spec.low_rank, config).down_covariance;
  const int64_t moments = stored ? 8 * (3 * d * d + q * q + (wide ? f * f : 0)) : 0;
  const int64_t maps = 4 * (2 * d * (q + config.kv_width()) + 3 * d * f);
  const bool rows = stored && attempt.spec.low_rank->mlp != MlpCompression::kLocal;
  return config.num_layers * (moments + maps + (rows ? hidden : 0)) + 2 * hidden;
}

absl::Status Check(const std::filesystem::path& folder, int64_t needed, const char* reason) {
  const std::filesystem::path existing = Existing(folder);
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(existing, error);
  if (error || space.available >= uint64_t(needed)) return absl::OkStatus();
  return WithReason(absl::ResourceExhaustedError(
                        absl::StrCat("disk of ", existing.string(), " has ", space.available,
                                     " bytes free, expected at least ", needed)),
                    reason);
}

}  // namespace

int64_t ScratchBytesNeeded(const Attempt& attempt, const Inputs& inputs) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  const int64_t d = config.hidden_size;
  const int64_t m = config.kv_width();
  const int64_t layers = config.num_layers;
  const int64_t hidden = inputs.sequences.count * inputs.sequences.length * d *
                         int64_t(c10::elementSize(attempt.dtype));
  const FactorizationSpec& spec = attempt.spec.factorization;
  const factorize::StatisticsNeeds needs = factorize::NeedsOf(spec.preconditioner.kind);
  // The way back needs the input of every layer.
  const int64_t states = spec.loss_aware ? layers + 2 : 2;
  const int64_t statistics = spec.loss_aware
                                 ? 8 * 4 * 4 * m * m
                                 : 8 * (2 * d + 2 * m * m + (needs.cross ? 2 * m * d : 0) +
                                        (needs.covariance ? d * d : 0));
  const int64_t factors = 4 * 2 * (m * m + m * d);
  const int64_t passing = FinishedLayers(attempt, layers) < layers ? states * hidden : 0;
  const int64_t anchoring = AnchorStates(attempt, layers) * hidden;
  const int64_t in_all =
      std::max(passing, KeptBytes(attempt, inputs) + anchoring) +
      layers * (statistics + factors + HealingBytes(attempt, d, m, config.q_width()));
  const int64_t needed = attempt.spec.low_rank ? LowRankBytes(attempt, config, hidden) : in_all;
  const int64_t held = HeldBytes(attempt.work.calibrate()) + HeldBytes(attempt.work.factorize()) +
                       HeldBytes(attempt.work.finetune());
  return std::max<int64_t>(needed - held, 0) + kSlackBytes;
}

absl::Status CheckDiskSpace(const Attempt& attempt, const Inputs& inputs) {
  LF_RETURN_IF_ERROR(
      Check(attempt.work.path(), ScratchBytesNeeded(attempt, inputs), "SCRATCH_FULL"));
  const int64_t output = inputs.checkpoint.total_bytes() /
                         checkpoint::BytesOf(inputs.source_dtype) *
                         checkpoint::BytesOf(inputs.output_dtype);
  return Check(attempt.spec.output, output + kSlackBytes, "OUTPUT_DISK_FULL");
}

}  // namespace latentforge::convert
