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
#include "worker/convert/linear_pass.h"
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

// Moments and the Fisher information of each layer in fp64, and its maps; rows that enter MLPs; the
// states of two layers, and on the way back those of every layer of some sequences.
int64_t LowRankBytes(const Attempt& attempt, const Inputs& inputs) {
  const LowRankSpec& spec = *attempt.spec.low_rank;
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  const int64_t d = config.hidden_size;
  const int64_t q = config.q_width();
  const int64_t m = config.kv_width();
  const int64_t f = config.intermediate_size;
  const calibrate::LinearMomentsNeeds needs = NeedsOf(spec, config);
  const bool stored = !spec.compressed_activations || spec.global_ranks;
  const int64_t moments =
      8 * (3 * d * d + q * q + (needs.down_covariance ? f * f : 0) + needs.attention_rows * d);
  const int64_t fisher = 8 * (q * q + 2 * m * m + 2 * d * d + 2 * f);
  const int64_t maps = 4 * (2 * d * (q + m) + 3 * d * f);
  const bool kept_rows = spec.mlp != MlpCompression::kLocal && !spec.compressed_activations;
  const int64_t rows = kept_rows ? MlpRowsShape(attempt, inputs).Bytes() : 0;
  const auto states = [&](const calibrate::TokenSequences& sequences) {
    return sequences.count * sequences.length * d * int64_t(c10::elementSize(attempt.dtype));
  };
  const int64_t back =
      spec.loss_aware ? (config.num_layers + 2) * states(SequencesOfGradient(inputs.sequences)) : 0;
  return config.num_layers *
             ((stored ? moments : 0) + (spec.loss_aware ? fisher : 0) + maps + rows) +
         std::max(2 * states(inputs.sequences), back);
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
  const int64_t needed = attempt.spec.low_rank ? LowRankBytes(attempt, inputs) : in_all;
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
