#include "checkpoint/estimate_memory.h"

#include <algorithm>

#include "checkpoint/dtype.h"
#include "checkpoint/estimate_parts.h"

namespace latentforge::checkpoint {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// The process before its first tensor: 59 MiB are LibTorch's tables of operators,
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
constexpr int64_t kLabelLogits = 32 * kMiB;
constexpr int64_t kHealingLogits = int64_t{1} << 24;

constexpr int64_t kF32Bytes = 4;
constexpr int64_t kF64Bytes = 8;

// What stands beside the MLP's product while it is formed, in units of its inner width: gate, up
// and their product; without a gate only up, which is activated where it is.
int64_t InnerRows(const ModelConfig& config) { return config.gated() ? 3 : 1; }

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
        vocabulary_(config.vocab_size),
        inner_rows_(InnerRows(config)),
        gradient_bytes_(settings.gradients ? kF64Bytes * GradientMoments(config) : 0),
        layer_(LayerParameters(config) * bytes_) {}

  int64_t Calibration() const {
    if (settings_.statistics == StatisticsKind::kFisher) {
      return WayBack(settings_.calibration_sequences, Statistics(), 2 * m_);
    }
    const int64_t sequences = settings_.calibration_sequences;
    const int64_t length = settings_.sequence_length;
    // The rows in fp32, their absolute values, and these again in fp64.
    const int64_t block = kStatisticsRows * d_ * (2 * kF32Bytes + kF64Bytes);
    const int64_t batch = Hidden(Together(sequences, length, kCalibrationTokens)) + Front() +
                          std::max(block, Temporaries(Rows(sequences, length)));
    // The means are copies; looking for infinities in one takes as much as that one.
    const int64_t finish = Statistics() + LargestStatistic();
    const int64_t forward = Scratch(Rows(sequences, length)) + layer_ + KeyValue(kF32Bytes) +
                            Statistics() + std::max(batch, finish);
    if (!settings_.gradients) return forward;
    return std::max(forward,
                    WayBack(SequencesOfGradient(settings_), gradient_bytes_, std::max(d_, q_)));
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
      // With gradients the metric's eigenvectors, its root and their like besides.
      const int64_t squares = settings_.gradients ? 10 : 5;
      // The centred covariance as it is made; the damped one, its factor and the inverse.
      const int64_t inner = settings_.inner_inverse      ? 3 * f_ * f_
                            : settings_.inner_covariance ? 2 * f_ * f_
                                                         : 0;
      return Statistics() + gradient_bytes_ +
             kF64Bytes * (layer_ / bytes_ + squares * width * width + 2 * f_ * d_ + inner);
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
        return kF64Bytes * (3 * d_ * d_ + q_ * q_ + (settings_.inner_covariance ? f_ * f_ : 0));
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
        return kF64Bytes *
               std::max({d_ * d_, q_ * q_, settings_.inner_covariance ? f_ * f_ : int64_t{0}});
    }
    return 0;
  }

  // The way back over `sequences`, with moments of so many bytes of which the largest is `width`
  // wide: the forward pass's scratch stays, and attention's graph keeps what each step gave and its
  // gradient.
  int64_t WayBack(int64_t sequences, int64_t statistics, int64_t width) const {
    const int64_t length = settings_.sequence_length;
    const int64_t tokens = Together(sequences, length, kFisherTokens);
    const int64_t attention = bytes_ * tokens * (6 * d_ + 4 * q_ + 6 * m_);
    const int64_t mlp = bytes_ * kBackwardMlpRows * 4 * f_;
    const int64_t moments = kF32Bytes * (kStatisticsRows * width * 2 + width * width);
    const int64_t batch = std::max(attention + mlp, attention / 2 + moments);
    const int64_t finish = statistics + kF64Bytes * width * width;
    const int64_t backward = layer_ + KeyValue(kF32Bytes) + statistics + std::max(batch, finish);
    const int64_t rows = std::clamp<int64_t>(kLabelLogits / (vocabulary_ * bytes_), 1, tokens);
    const int64_t head = rows * (vocabulary_ * bytes_ + kLabelColumns * 2 * kF32Bytes) +
                         tokens * d_ * (2 * kF32Bytes + 4 * bytes_) + kLabelColumns * d_ * bytes_;
    return Scratch(Rows(sequences, length)) + std::max(backward, head);
  }

  const EstimateSettings& settings_;
  const int64_t bytes_;  // of an element in computation
  const int64_t d_;      // hidden size
  const int64_t q_;      // outputs of Q
  const int64_t m_;      // outputs of K, and of V
  const int64_t f_;      // intermediate size
  const int64_t vocabulary_;
  const int64_t inner_rows_;
  const int64_t gradient_bytes_;  // moments of gradients, with kLinear
  const int64_t layer_;           // weights of one layer
};

}  // namespace

int64_t PeakMemory(const ModelConfig& config, const EstimateSettings& settings, int64_t rank) {
  const Sizes sizes(config, settings);
  const int64_t tokenising = kTokenizerBytesPerToken * config.vocab_size + kTokenizedBytes;
  const int64_t computing = std::max({sizes.Calibration(), sizes.Factorisation(), sizes.Anchored(),
                                      sizes.Healing(config, rank), sizes.Evaluation()});
  return kProcessBytes + std::max(tokenising, kComputeBytes + computing);
}

}  // namespace latentforge::checkpoint
