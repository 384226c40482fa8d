#include "checkpoint/estimate.h"

#include <algorithm>

#include "base/status_macros.h"
#include "checkpoint/estimate_memory.h"
#include "checkpoint/estimate_parts.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/linear_costs.h"
#include "checkpoint/rank_rule.h"
#include "checkpoint/tensor_catalogue.h"

namespace latentforge::checkpoint {
namespace {

// Times: as measured with SmolLM2-135M on two cores of a Xeon with AMX. Machines without
// it take bf16 for fp32 and longer.
constexpr double kFlopsPerThreadFp32 = 75e9;   // 474 tokens/s, 340 Mflop each
constexpr double kFlopsPerThreadBf16 = 220e9;  // 1,098 to 1,632 tokens/s
constexpr double kEigenFlopsPerThread = 8e9;   // fp64; 10 ms for m = 192
constexpr double kEigenFlops = 14;             // of values, then vectors, over n^3
constexpr double kBytesPerSecond = 1e9;        // SHA-256, and copies out of the page cache
constexpr double kStartSeconds = 1;            // process, tokenizer, texts
constexpr double kLayerSeconds = 0.05;         // files of a layer, synced
constexpr double kBackwardCost = 3;            // of a layer's forward pass, which it repeats
constexpr double kHeadSweeps = 3;              // softmax, softmax again, gradient
constexpr double kHealingHeads = 3;            // logits of both models, gradient
// Small batches, weights read at each step, gradients of the factors in fp32: 220 tokens/s.
constexpr double kHealingOverhead = 1.5;

// Configuration, model code and report of an artifact, and its tokenizer.json (3.5 MB for
// 49,152 entries, 9 MB for 128,256).
constexpr int64_t kArtifactExtraBytes = int64_t{1} << 17;
constexpr int64_t kArtifactBytesPerToken = 72;

// One token through all layers, in floating-point operations. Attention is causal: half
// of the context on average, a product with K and one with V.
double LayersFlops(const ModelConfig& config, int64_t context) {
  const double attention =
      2.0 * static_cast<double>(config.q_width()) * static_cast<double>(context);
  return static_cast<double>(config.num_layers) *
         (2.0 * static_cast<double>(LayerParameters(config)) + attention);
}

double HeadFlops(const ModelConfig& config) {
  return 2.0 * static_cast<double>(config.hidden_size) * static_cast<double>(config.vocab_size);
}

// Of the statistics of one token, in fp32, all layers.
double StatisticsFlops(const ModelConfig& config, const EstimateSettings& settings) {
  const StatisticsKind kind = settings.statistics;
  const auto m = static_cast<double>(config.kv_width());
  const auto d = static_cast<double>(config.hidden_size);
  double flops = 4 * m * d + 4 * m * m;
  if (kind == StatisticsKind::kCross) flops += 4 * m * d;
  if (kind == StatisticsKind::kCovariance) flops += 2 * d * d;
  if (kind == StatisticsKind::kFisher) flops = 4 * m * d + 16 * m * m;
  const auto q = static_cast<double>(config.q_width());
  if (kind == StatisticsKind::kLinear) flops = 6 * d * d + 2 * q * q;
  if (settings.inner_covariance) {
    const auto f = static_cast<double>(config.intermediate_size);
    flops += 2 * f * f;
  }
  return static_cast<double>(config.num_layers) * flops;
}

// Of the moments of one token's gradients, with kLinear.
double GradientFlops(const ModelConfig& config) {
  return 2.0 * static_cast<double>(config.num_layers * GradientMoments(config));
}

double FactorisationFlops(const ModelConfig& config, const EstimateSettings& settings) {
  const auto cube = [](int64_t n) {
    return static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  };
  const int64_t m = config.kv_width();
  double flops = settings.joint ? cube(2 * m) : 2 * cube(m);
  if (settings.statistics == StatisticsKind::kCovariance) flops += cube(config.hidden_size);
  // Once for the spectrum, once for the factors.
  if (settings.statistics == StatisticsKind::kFisher) flops *= 2;
  // Q and O, K and V, gate and up, down.
  if (settings.statistics == StatisticsKind::kLinear) {
    flops = 2 * cube(std::min(config.q_width(), config.hidden_size)) + 2 * cube(m) +
            3 * cube(config.hidden_size);
    // Of the metric too, and once for the spectra, once for the factors.
    if (settings.gradients) flops *= 4;
  }
  // The factor and its inverse.
  const double inner = settings.inner_inverse ? cube(config.intermediate_size) : 0;
  return static_cast<double>(config.num_layers) * (kEigenFlops * flops + inner);
}

double Seconds(const ModelConfig& config, const EstimateSettings& settings) {
  const auto threads = static_cast<double>(std::max<int64_t>(settings.threads, 1));
  const double rate = threads * (settings.compute_dtype == DType::kBF16 ? kFlopsPerThreadBf16
                                                                        : kFlopsPerThreadFp32);
  const double calibration_tokens = static_cast<double>(settings.calibration_sequences) *
                                    static_cast<double>(settings.sequence_length);
  double sweeps = LayersFlops(config, settings.sequence_length);
  if (settings.statistics == StatisticsKind::kFisher) {
    sweeps = sweeps * (1 + kBackwardCost) + kHeadSweeps * HeadFlops(config);
  }
  const double calibration =
      calibration_tokens *
      (sweeps / rate + StatisticsFlops(config, settings) / (threads * kFlopsPerThreadFp32));
  const double gradients =
      settings.gradients
          ? static_cast<double>(SequencesOfGradient(settings) * settings.sequence_length) *
                ((LayersFlops(config, settings.sequence_length) * (1 + kBackwardCost) +
                  kHeadSweeps * HeadFlops(config)) /
                     rate +
                 GradientFlops(config) / (threads * kFlopsPerThreadFp32))
          : 0;
  const double evaluation = 2.0 * static_cast<double>(settings.evaluation_windows) *
                            static_cast<double>(settings.window_length) *
                            (LayersFlops(config, settings.window_length) + HeadFlops(config)) /
                            rate;
  // Both models forward, one of them back.
  const double healing =
      kHealingOverhead * static_cast<double>(settings.healing_tokens) *
      ((2 + kBackwardCost) * LayersFlops(config, 512) + kHealingHeads * HeadFlops(config)) / rate;
  const double factorisation =
      FactorisationFlops(config, settings) / (threads * kEigenFlopsPerThread);
  // Both models forward, and two D x D products.
  const auto d = static_cast<double>(config.hidden_size);
  const double anchored =
      settings.anchored
          ? calibration_tokens * (2 * LayersFlops(config, settings.sequence_length) / rate +
                                  static_cast<double>(config.num_layers) * 4 * d * d /
                                      (threads * kFlopsPerThreadFp32))
          : 0;
  // Weights are read for the digest, calibration, each evaluation and the export.
  const double bytes =
      5.0 * static_cast<double>(NumParameters(config) * BytesOf(settings.weight_dtype));
  return kStartSeconds + kLayerSeconds * static_cast<double>(config.num_layers) + calibration +
         gradients + evaluation + healing + factorisation + anchored + bytes / kBytesPerSecond;
}

// What the result has.
struct Result {
  int64_t parameters = 0;
  int64_t values = 0;  // cached, of a token, over all layers
  int64_t rank = 0;    // of a latent
};

absl::StatusOr<Result> KvLatentResult(const ModelConfig& config, const EstimateSettings& settings) {
  Result result;
  if (settings.joint) {
    LF_ASSIGN_OR_RETURN(result.values, JointRankTotalForBudget(config, settings.kv_budget));
  } else {
    LF_ASSIGN_OR_RETURN(const RankTotals totals, RankTotalsForBudget(config, settings.kv_budget));
    result.values = totals.k + totals.v;
  }
  const int64_t shares = config.num_layers * (settings.joint ? 1 : 2);
  result.rank = (result.values + shares - 1) / shares;
  ModelConfig converted = config;
  LatentConfig latent;
  latent.joint = settings.joint;
  latent.ranks.assign(
      static_cast<size_t>(config.num_layers),
      settings.joint ? LayerRanks{0, 0, result.rank} : LayerRanks{result.rank, result.rank, 0});
  converted.latent = std::move(latent);
  result.parameters = NumParameters(converted);
  return result;
}

absl::StatusOr<Result> LowRankResult(const ModelConfig& config, double ratio) {
  const int64_t d = config.hidden_size;
  const int64_t m = config.kv_width();
  Result result;
  LF_ASSIGN_OR_RETURN(result.rank, RankForRatio(RankRule::kBlockIdentity, m, d, ratio));
  result.values = config.num_layers * 2 * result.rank;
  result.parameters =
      NumParameters(config) -
      static_cast<int64_t>(ratio * static_cast<double>(DecoderLinearCosts(config).weights));
  return result;
}

}  // namespace

absl::StatusOr<Estimate> EstimateConversion(const ModelConfig& config,
                                            const EstimateSettings& settings) {
  LF_ASSIGN_OR_RETURN(const Result result, settings.parameter_ratio > 0
                                               ? LowRankResult(config, settings.parameter_ratio)
                                               : KvLatentResult(config, settings));

  Estimate estimate;
  estimate.peak_memory_bytes = PeakMemory(config, settings, result.rank);
  estimate.seconds = Seconds(config, settings);
  estimate.output_bytes = result.parameters * BytesOf(settings.weight_dtype) + kArtifactExtraBytes +
                          kArtifactBytesPerToken * config.vocab_size;
  estimate.kv_bytes_per_token_base = KvBytesPerToken(config, settings.weight_dtype);
  estimate.kv_bytes_per_token_converted = result.values * BytesOf(settings.weight_dtype);
  return estimate;
}

}  // namespace latentforge::checkpoint
