#include "checkpoint/estimate.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/tensor_catalogue.h"

namespace latentforge::checkpoint {
namespace {

// The machine, as measured on two cores of a 2023 Xeon with SmolLM2-135M; other
// machines differ by a small factor.
constexpr double kFlopsPerThreadFp32 = 55e9;
constexpr double kFlopsPerThreadBf16 = 120e9;
constexpr double kFp64FlopsPerThread = 4e9;  // of symmetric eigenproblems
constexpr double kDiskBytesPerSecond = 1e9;
constexpr double kStartSeconds = 2;  // process, tokenizer, first operation

// Floating-point operations of an n x n symmetric eigenproblem, over n^3.
constexpr double kEigenFlops = 10;

// Memory of the process before the first tensor, LibTorch's code included.
constexpr int64_t kProcessBytes = int64_t{300} << 20;
// Logits exist for this many positions at a time.
constexpr int64_t kLogitRows = 512;
// Configuration, tokenizer, model code and report in an artifact.
constexpr int64_t kArtifactExtraBytes = int64_t{4} << 20;

int64_t Elements(const TensorSpec& spec) {
  int64_t elements = 1;
  for (const int64_t dimension : spec.shape) elements *= dimension;
  return elements;
}

int64_t LayerParameters(const ModelConfig& config) {
  int64_t parameters = 0;
  for (const TensorSpec& spec : LayerTensors(config, 0)) parameters += Elements(spec);
  return parameters;
}

// One token through all layers, in floating-point operations.
double LayersFlops(const ModelConfig& config, int64_t context) {
  const auto layers = static_cast<double>(config.num_layers);
  const double attention =
      4.0 * static_cast<double>(config.q_width()) * static_cast<double>(context);
  return layers * (2.0 * static_cast<double>(LayerParameters(config)) + attention);
}

double HeadFlops(const ModelConfig& config) {
  return 2.0 * static_cast<double>(config.hidden_size) * static_cast<double>(config.vocab_size);
}

double Seconds(const ModelConfig& config, const EstimateSettings& settings) {
  const auto threads = static_cast<double>(std::max<int64_t>(settings.threads, 1));
  const double rate = threads * (settings.compute_dtype == DType::kBF16 ? kFlopsPerThreadBf16
                                                                        : kFlopsPerThreadFp32);
  const auto width = static_cast<double>(config.kv_width());
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto layers = static_cast<double>(config.num_layers);
  const double calibration_tokens = static_cast<double>(settings.calibration_sequences) *
                                    static_cast<double>(settings.sequence_length);
  const double gram = layers * (4 * width * width + (settings.hessian ? 2 * hidden * hidden : 0));
  const double calibration =
      calibration_tokens * (LayersFlops(config, settings.sequence_length) + gram);
  const double evaluation_tokens = 2.0 * static_cast<double>(settings.evaluation_windows) *
                                   static_cast<double>(settings.window_length);
  const double evaluation =
      evaluation_tokens * (LayersFlops(config, settings.window_length) + HeadFlops(config));
  double factorisation = layers * 2 * kEigenFlops * width * width * width;
  if (settings.hessian) factorisation += layers * kEigenFlops * hidden * hidden * hidden;
  // Weights are read for the digest, calibration, each evaluation and the export.
  const double disk =
      5.0 * static_cast<double>(NumParameters(config) * BytesOf(settings.weight_dtype));
  return kStartSeconds + (calibration + evaluation) / rate +
         factorisation / (threads * kFp64FlopsPerThread) + disk / kDiskBytesPerSecond;
}

int64_t PeakMemory(const ModelConfig& config, const EstimateSettings& settings) {
  const int64_t compute = BytesOf(settings.compute_dtype);
  const int64_t stored = BytesOf(settings.weight_dtype);
  const int64_t tokens = std::max(settings.sequence_length, settings.window_length);
  const int64_t layer = LayerParameters(config) * (compute + stored);
  const int64_t head = config.vocab_size * config.hidden_size * (compute + stored) +
                       2 * kLogitRows * config.vocab_size * 4;
  // Residual stream and its norm, Q and attention output, K and V, three of the MLP.
  const int64_t activations = compute * tokens *
                              (4 * config.hidden_size + 2 * config.q_width() +
                               4 * config.kv_width() + 3 * config.intermediate_size);
  // Statistics of K and V in fp64, and as much again as work space.
  int64_t statistics = 4 * 8 * config.kv_width() * config.kv_width();
  if (settings.hessian) statistics += 2 * 8 * config.hidden_size * config.hidden_size;
  // Calibration needs no head, evaluation no statistics.
  return kProcessBytes + layer + activations + std::max(head, statistics);
}

}  // namespace

absl::StatusOr<Estimate> EstimateConversion(const ModelConfig& config,
                                            const EstimateSettings& settings) {
  LF_ASSIGN_OR_RETURN(const RankTotals totals, RankTotalsForBudget(config, settings.kv_budget));
  ModelConfig converted = config;
  LatentConfig latent;
  const int64_t rank = (totals.k + config.num_layers - 1) / config.num_layers;
  latent.ranks.assign(static_cast<size_t>(config.num_layers), LayerRanks{rank, rank, 0});
  converted.latent = std::move(latent);

  Estimate estimate;
  estimate.peak_memory_bytes = PeakMemory(config, settings);
  estimate.seconds = Seconds(config, settings);
  estimate.output_bytes =
      NumParameters(converted) * BytesOf(settings.weight_dtype) + kArtifactExtraBytes;
  estimate.kv_bytes_per_token_base = KvBytesPerToken(config, settings.weight_dtype);
  estimate.kv_bytes_per_token_converted = (totals.k + totals.v) * BytesOf(settings.weight_dtype);
  return estimate;
}

}  // namespace latentforge::checkpoint
