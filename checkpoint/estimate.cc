#include "checkpoint/estimate.h"

#include <algorithm>

#include "base/status_macros.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/linear_costs.h"
#include "checkpoint/rank_rule.h"
#include "checkpoint/tensor_catalogue.h"

namespace latentforge::checkpoint {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

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

// Memory. The process before its first tensor: 59 MiB are LibTorch's tables of operators,
// the rest is code.
constexpr int64_t kProcessBytes = 118 * kMiB;
// What computing leaves: 30 MiB more of LibTorch's code, generated code, token ids.
constexpr int64_t kComputeBytes = 52 * kMiB;
// Loaded from tokenizer.json, for an entry of the vocabulary: 21 MB for 49,152.
constexpr int64_t kTokenizerBytesPerToken = 450;
// To tokenise one piece of text (worker/convert/text_tokens.h).
constexpr int64_t kTokenizedBytes = 64 * kMiB;

// As the code has them: decoder.cc, calibration_pass.h, perplexity.cc, cross_entropy.h,
// statistics_collector.cc, layer_graph.cc, label_gradient.h.
constexpr int64_t kForwardRows = 2048;
constexpr int64_t kCalibrationTokens = 4096;
constexpr int64_t kFisherTokens = 2048;
constexpr int64_t kEvaluationTokens = 8192;
constexpr int64_t kHeadRows = 1024;
constexpr int64_t kHeadColumns = 4096;
constexpr int64_t kStatisticsRows = 1024;
constexpr int64_t kBackwardMlpRows = 512;
constexpr int64_t kLabelColumns = 1024;
constexpr int64_t kHealingLogits = int64_t{1} << 24;

// Configuration, model code and report of an artifact, and its tokenizer.json (3.5 MB for
// 49,152 entries, 9 MB for 128,256).
constexpr int64_t kArtifactExtraBytes = kMiB / 8;
constexpr int64_t kArtifactBytesPerToken = 72;

constexpr int64_t kF32Bytes = 4;
constexpr int64_t kF64Bytes = 8;

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

// What stands beside the MLP's product while it is formed, in units of its inner width: gate, up
// and their product; without a gate only up, which is activated where it is.
int64_t InnerRows(const ModelConfig& config) { return config.gated() ? 3 : 1; }

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
double StatisticsFlops(const ModelConfig& config, StatisticsKind kind) {
  const auto m = static_cast<double>(config.kv_width());
  const auto d = static_cast<double>(config.hidden_size);
  double flops = 4 * m * d + 4 * m * m;
  if (kind == StatisticsKind::kCross) flops += 4 * m * d;
  if (kind == StatisticsKind::kCovariance) flops += 2 * d * d;
  if (kind == StatisticsKind::kFisher) flops = 4 * m * d + 16 * m * m;
  const auto q = static_cast<double>(config.q_width());
  if (kind == StatisticsKind::kLinear) flops = 6 * d * d + 2 * q * q;
  return static_cast<double>(config.num_layers) * flops;
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
  }
  return static_cast<double>(config.num_layers) * kEigenFlops * flops;
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
      calibration_tokens * (sweeps / rate + StatisticsFlops(config, settings.statistics) /
                                                (threads * kFlopsPerThreadFp32));
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
         evaluation + healing + factorisation + anchored + bytes / kBytesPerSecond;
}

// Tokens that are taken together: whole sequences, up to `most`, at least one.
int64_t Together(int64_t sequences, int64_t length, int64_t most) {
  length = std::max<int64_t>(length, 1);
  return length * std::clamp<int64_t>(most / length, 1, std::max<int64_t>(sequences, 1));
}

// The sizes of what a phase holds, in bytes.
class Sizes {
 public:
  Sizes(const ModelConfig& config, const EstimateSettings& settings)
      : settings_(settings),
        bytes_(BytesOf(settings.compute_dtype)),
        d_(config.hidden_size),
        q_(config.q_width()),
        m_(config.kv_width()),
        f_(config.intermediate_size),
        inner_rows_(InnerRows(config)),
        layer_(LayerParameters(config) * bytes_) {}

  int64_t Calibration() const {
    if (settings_.statistics == StatisticsKind::kFisher) return Fisher();
    const int64_t sequences = settings_.calibration_sequences;
    const int64_t length = settings_.sequence_length;
    // The rows in fp32, their absolute values, and these again in fp64.
    const int64_t block = kStatisticsRows * d_ * (2 * kF32Bytes + kF64Bytes);
    const int64_t batch = Hidden(Together(sequences, length, kCalibrationTokens)) + Front() +
                          std::max(block, Temporaries(Rows(sequences, length)));
    // The means are copies; looking for infinities in one takes as much as that one.
    const int64_t finish = Statistics() + LargestStatistic();
    return Scratch(Rows(sequences, length)) + layer_ + KeyValue(kF32Bytes) + Statistics() +
           std::max(batch, finish);
  }

  int64_t Evaluation() const {
    const int64_t windows = settings_.evaluation_windows;
    const int64_t length = settings_.window_length;
    const int64_t rows = Rows(windows, length);
    const int64_t layer = layer_ + Front() + Temporaries(rows);
    const int64_t head = bytes_ * (kHeadRows * kHeadColumns + kHeadColumns * d_ + rows * d_);
    return Hidden(Together(windows, length, kEvaluationTokens)) + Scratch(rows) +
           std::max(layer, head);
  }

  // Every layer's input and what is trained: masters, two moments, the best ones, gradients, and
  // those computed with; the head and the logits of both models.
  int64_t Healing(const ModelConfig& config, int64_t rank) const {
    if (settings_.healing_tokens == 0) return 0;
    const int64_t tokens = std::max<int64_t>(settings_.healing_batch_tokens, 1);
    const int64_t others = settings_.healing_attention ? 2 * q_ * d_ : 0;
    const int64_t weights =
        config.num_layers * (rank * (d_ + 2 * m_) + others) * (5 * kF32Bytes + bytes_);
    const int64_t states = Hidden(tokens) * (config.num_layers + 4);
    const int64_t head = bytes_ * config.vocab_size * d_ + 3 * bytes_ * kHealingLogits;
    const int64_t backward =
        bytes_ * tokens * (6 * d_ + 4 * q_ + 6 * m_ + inner_rows_ * f_) + 2 * layer_;
    return weights + states + head + backward;
  }

  // Both projections in fp64, and what an eigendecomposition works in.
  int64_t Factorisation() const {
    if (settings_.statistics == StatisticsKind::kLinear) {
      const int64_t width = std::max(d_, q_);
      return Statistics() + kF64Bytes * (layer_ / bytes_ + 5 * width * width + 2 * f_ * d_);
    }
    const int64_t n = settings_.joint ? 2 * m_ : m_;
    return Statistics() + KeyValue(kF64Bytes) + 5 * kF64Bytes * n * n;
  }

  // Four moments in fp64. While they are summed, a block's product in fp32 and a batch of both
  // streams with their normed states; when they are solved, their mixture, its root and a copy,
  // and what becomes W'.
  int64_t Anchored() const {
    if (!settings_.anchored) return 0;
    const int64_t sequences = settings_.calibration_sequences;
    const int64_t length = settings_.sequence_length;
    const int64_t rows = Rows(sequences, length);
    const int64_t batch = Hidden(Together(sequences, length, kCalibrationTokens));
    const int64_t square = d_ * d_;
    const int64_t sum = 4 * batch + kF32Bytes * (square + 2 * kStatisticsRows * d_);
    const int64_t solve = 3 * kF64Bytes * square + 4 * KeyValue(kF64Bytes) + Factorisation();
    const int64_t forward = batch + Front() + Temporaries(rows) + Scratch(rows);
    return layer_ + std::max(4 * kF64Bytes * square + std::max(sum, solve), forward);
  }

 private:
  static int64_t Rows(int64_t sequences, int64_t length) {
    return Together(sequences, length, kForwardRows);
  }

  int64_t Hidden(int64_t tokens) const { return bytes_ * tokens * d_; }

  // Normed states, the output of Q, K and V, attention's output, gate and up, their product.
  int64_t Scratch(int64_t rows) const {
    return bytes_ * rows * (d_ + (q_ + 2 * m_) + q_ + inner_rows_ * f_);
  }

  // The weights of Q, K and V as one matrix.
  int64_t Front() const { return bytes_ * (q_ + 2 * m_) * d_; }

  // Of attention, of the product added to the states, and K and V from latents.
  int64_t Temporaries(int64_t rows) const { return bytes_ * rows * (q_ + d_ + 2 * m_); }

  int64_t KeyValue(int64_t element) const { return 2 * m_ * d_ * element; }

  int64_t Statistics() const {
    switch (settings_.statistics) {
      case StatisticsKind::kOutputs:
        return kF64Bytes * 2 * m_ * m_;
      case StatisticsKind::kCross:
        return kF64Bytes * (2 * m_ * m_ + 2 * m_ * d_);
      case StatisticsKind::kCovariance:
        return kF64Bytes * (2 * m_ * m_ + d_ * d_);
      case StatisticsKind::kFisher:
        return kF64Bytes * 4 * (2 * m_) * (2 * m_);
      case StatisticsKind::kLinear:
        return kF64Bytes * (3 * d_ * d_ + q_ * q_);
    }
    return 0;
  }

  int64_t LargestStatistic() const {
    switch (settings_.statistics) {
      case StatisticsKind::kOutputs:
        return kF64Bytes * m_ * m_;
      case StatisticsKind::kCross:
        return kF64Bytes * m_ * std::max(m_, d_);
      case StatisticsKind::kCovariance:
        return kF64Bytes * std::max(m_ * m_, d_ * d_);
      case StatisticsKind::kFisher:
        return kF64Bytes * (2 * m_) * (2 * m_);
      case StatisticsKind::kLinear:
        return kF64Bytes * std::max(d_ * d_, q_ * q_);
    }
    return 0;
  }

  // The way back: the forward pass's scratch stays, and attention's graph keeps what each
  // step gave and its gradient.
  int64_t Fisher() const {
    const int64_t sequences = settings_.calibration_sequences;
    const int64_t length = settings_.sequence_length;
    const int64_t tokens = Together(sequences, length, kFisherTokens);
    const int64_t attention = bytes_ * tokens * (6 * d_ + 4 * q_ + 6 * m_);
    const int64_t mlp = bytes_ * kBackwardMlpRows * 4 * f_;
    const int64_t moments = kStatisticsRows * 2 * m_ * 2 * kF32Bytes + 2 * m_ * 2 * m_ * kF32Bytes;
    const int64_t batch = std::max(attention + mlp, attention / 2 + moments);
    const int64_t finish = Statistics() + LargestStatistic();
    const int64_t backward = layer_ + KeyValue(kF32Bytes) + Statistics() + std::max(batch, finish);
    const int64_t head = tokens * kLabelColumns * (2 * kF32Bytes + bytes_) +
                         tokens * d_ * (2 * kF32Bytes + 4 * bytes_) + kLabelColumns * d_ * bytes_;
    return Scratch(Rows(sequences, length)) + std::max(backward, head);
  }

  const EstimateSettings& settings_;
  const int64_t bytes_;  // of an element in computation
  const int64_t d_;      // hidden size
  const int64_t q_;      // outputs of Q
  const int64_t m_;      // outputs of K, and of V
  const int64_t f_;      // intermediate size
  const int64_t inner_rows_;
  const int64_t layer_;  // weights of one layer
};

int64_t PeakMemory(const ModelConfig& config, const EstimateSettings& settings, int64_t rank) {
  const Sizes sizes(config, settings);
  const int64_t tokenising = kTokenizerBytesPerToken * config.vocab_size + kTokenizedBytes;
  const int64_t computing = std::max({sizes.Calibration(), sizes.Factorisation(), sizes.Anchored(),
                                      sizes.Healing(config, rank), sizes.Evaluation()});
  return kProcessBytes + std::max(tokenising, kComputeBytes + computing);
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
