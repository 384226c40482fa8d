#include "worker/calibrate/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::calibrate {
namespace {

// Uniform in [0, bound). The standard's distributions differ between libraries.
uint64_t Below(std::mt19937_64& random, uint64_t bound) {
  const uint64_t limit = bound * (std::mt19937_64::max() / bound);
  uint64_t value = random();
  while (value >= limit) value = random();
  return value % bound;
}

// `count` of the numbers [0, total), sorted.
std::vector<int64_t> Choose(std::mt19937_64& random, int64_t total, int64_t count) {
  std::vector<int64_t> numbers(static_cast<size_t>(total));
  std::iota(numbers.begin(), numbers.end(), int64_t{0});
  for (int64_t i = 0; i < count; ++i) {
    std::swap(numbers[i], numbers[i + int64_t(Below(random, uint64_t(total - i)))]);
  }
  numbers.resize(static_cast<size_t>(count));
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> DivideSequences(int64_t sequences,
                                                     const std::vector<double>& weights) {
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight of a calibration corpus is ", weight, ", expected more than 0"));
    }
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (!std::isfinite(sum)) {
    return absl::InvalidArgumentError("the weights of the calibration corpora are too large");
  }
  std::vector<int64_t> counts(weights.size());
  std::vector<std::pair<double, size_t>> fractions;
  int64_t left = sequences;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double share = double(sequences) * (weights[i] / sum);
    counts[i] = std::min(left, int64_t(share));
    left -= counts[i];
    fractions.emplace_back(double(counts[i]) - share, i);
  }
  std::sort(fractions.begin(), fractions.end());
  for (size_t i = 0; left > 0; i = (i + 1) % fractions.size(), --left) {
    ++counts[fractions[i].second];
  }
  return counts;
}

absl::StatusOr<TokenSequences> SampleSequences(const std::vector<TokenStream>& corpora,
                                               const SamplingOptions& options) {
  if (corpora.empty() || options.sequences < 1 || options.length < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("calibration needs at least one corpus, sequence and token; got ",
                     corpora.size(), ", ", options.sequences, " and ", options.length));
  }
  std::vector<double> weights;
  for (const TokenStream& corpus : corpora) weights.push_back(corpus.weight);
  LF_ASSIGN_OR_RETURN(const std::vector<int64_t> counts,
                      DivideSequences(options.sequences, weights));
  std::mt19937_64 random(options.seed);
  TokenSequences result{.count = options.sequences, .length = options.length};
  for (size_t c = 0; c < corpora.size(); ++c) {
    const auto tokens = int64_t(corpora[c].tokens.size());
    if (tokens / options.length < counts[c]) {
      return absl::InvalidArgumentError(absl::StrCat(
          "calibration corpus ", corpora[c].name, " has ", tokens, " tokens, ", counts[c],
          " sequences of ", options.length, " need ", counts[c] * options.length,
          ": lower --calibration-sequences or --sequence-length, or give more text"));
    }
    if (counts[c] == 0) continue;
    // A random offset moves the cuts, within what the pieces that we need leave over.
    const int64_t slack = std::min(tokens - counts[c] * options.length, options.length - 1);
    const auto offset = int64_t(Below(random, uint64_t(slack) + 1));
    const int64_t pieces = (tokens - offset) / options.length;
    for (const int64_t piece : Choose(random, pieces, counts[c])) {
      const auto begin = corpora[c].tokens.begin() + offset + piece * options.length;
      result.ids.insert(result.ids.end(), begin, begin + options.length);
    }
  }
  return result;
}

absl::StatusOr<std::vector<int32_t>> HoldBack(TokenStream& stream, int64_t tokens,
                                              int64_t still_needed) {
  const auto present = int64_t(stream.tokens.size());
  if (tokens < 1 || still_needed < 0 || present < still_needed || present - still_needed < tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("calibration corpus ", stream.name, " has ", present, " tokens, ",
                     still_needed, " are needed for calibration and ", tokens,
                     " more for the evaluation on its held-back end: give --evaluate FILE, lower "
                     "--evaluate-windows or --calibration-sequences, or give more text"));
  }
  std::vector<int32_t> held(stream.tokens.end() - tokens, stream.tokens.end());
  stream.tokens.resize(stream.tokens.size() - size_t(tokens));
  return held;
}

}  // namespace latentforge::calibrate
