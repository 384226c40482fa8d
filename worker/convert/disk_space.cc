#include "worker/convert/disk_space.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "worker/convert/error_reason.h"
#include "worker/factorize/preconditioner.h"

namespace latentforge::convert {
namespace {

// Headers, tokenizer, state and rounding.
constexpr int64_t kSlackBytes = int64_t{32} << 20;

absl::Status Check(const std::filesystem::path& folder, int64_t needed, const char* reason) {
  std::filesystem::path existing = std::filesystem::absolute(folder);
  std::error_code error;
  while (!std::filesystem::exists(existing, error) && existing.has_relative_path()) {
    existing = existing.parent_path();
  }
  const std::filesystem::space_info space = std::filesystem::space(existing, error);
  if (error || space.available >= uint64_t(needed)) return absl::OkStatus();
  return WithReason(absl::ResourceExhaustedError(
                        absl::StrCat("disk of ", existing.string(), " has ", space.available,
                                     " bytes free, expected at least ", needed)),
                    reason);
}

}  // namespace

absl::Status CheckDiskSpace(const Attempt& attempt, const Inputs& inputs) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  const int64_t d = config.hidden_size;
  const int64_t m = config.kv_width();
  const int64_t layers = config.num_layers;
  const int64_t left = layers - FinishedLayers(attempt, layers);
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
  LF_RETURN_IF_ERROR(
      Check(attempt.work.path(),
            (left > 0 ? states * hidden : 0) + left * statistics + layers * factors + kSlackBytes,
            "SCRATCH_FULL"));
  const int64_t output = inputs.checkpoint.total_bytes() /
                         checkpoint::BytesOf(inputs.source_dtype) *
                         checkpoint::BytesOf(inputs.output_dtype);
  return Check(attempt.spec.output, output + kSlackBytes, "OUTPUT_DISK_FULL");
}

}  // namespace latentforge::convert
