// Feeds arbitrary text to the parsers of config.json and of the shard index, and
// checks that what they accept can be used.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "checkpoint/estimate.h"
#include "checkpoint/folder.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/linear_costs.h"
#include "checkpoint/model_config.h"
#include "checkpoint/tensor_catalogue.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace checkpoint = latentforge::checkpoint;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto index = checkpoint::ParseShardIndex(text);
  if (index.ok()) {
    for (const std::string& file : index->files) {
      if (file.find('/') != std::string::npos) abort();
    }
  }
  const auto config = checkpoint::ParseModelConfig(text);
  if (!config.ok()) return 0;
  const auto layers = static_cast<size_t>(config->num_layers);
  if (config->sliding_window.size() != layers) abort();
  if (config->latent.has_value() && config->latent->ranks.size() != layers) abort();
  if (config->low_rank.has_value() && config->low_rank->ranks.size() != layers) abort();
  const int64_t linear = checkpoint::DecoderLinearCosts(*config).parameters();
  if (linear <= 0 || linear > checkpoint::NumParameters(*config)) abort();
  if (checkpoint::NumParameters(*config) <= 0) abort();
  if (checkpoint::KvBytesPerToken(*config, checkpoint::DType::kF32) <= 0) abort();
  const auto estimate =
      checkpoint::EstimateConversion(*config, {.calibration_sequences = 16,
                                               .sequence_length = 2048,
                                               .statistics = checkpoint::StatisticsKind::kFisher});
  if (estimate.ok() && !(estimate->peak_memory_bytes > 0 && estimate->seconds > 0)) abort();
  return 0;
}
