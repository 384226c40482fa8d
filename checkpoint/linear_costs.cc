#include "checkpoint/linear_costs.h"

#include <algorithm>
#include <optional>

#include "checkpoint/linear_maps.h"

namespace latentforge::checkpoint {
namespace {

// Keys that a query with `context` tokens up to itself sees in this layer.
int64_t VisibleKeys(const ModelConfig& config, int64_t layer, int64_t context) {
  const std::optional<int64_t>& window = config.sliding_window[static_cast<size_t>(layer)];
  return window.has_value() ? std::min(*window, context) : context;
}

// Scores of one query with one key, and one weighted value, in all heads.
double PairMacs(const ModelConfig& config) { return 2.0 * static_cast<double>(config.q_width()); }

// Cached numbers of a token that are multiplied by each row of an up projection. A dense
// projection's output is cached as it is.
int64_t ExpandedValues(const ModelConfig& config, int64_t layer) {
  const int64_t width = config.kv_width();
  if (config.low_rank.has_value()) {
    const LinearRanks& ranks = config.low_rank->ranks[static_cast<size_t>(layer)];
    return ranks.k + ranks.v;
  }
  if (!config.latent.has_value()) return 0;
  const LayerRanks& ranks = config.latent->ranks[static_cast<size_t>(layer)];
  if (config.latent->joint) return ranks.joint < 2 * width ? 2 * ranks.joint : 0;
  return (ranks.k < width ? ranks.k : 0) + (ranks.v < width ? ranks.v : 0);
}

// Of one low-rank or dense map.
LinearCosts CostsOf(const ModelConfig& config, int64_t layer, const LinearMap& map) {
  const int64_t rank = RankOf(config, layer, map);
  const bool identity = rank > 0 && config.low_rank->block_identity;
  return {.weights = rank > 0 ? FactorWeights(map, rank, identity) : map.weights(),
          .biases = HasBias(config, map, rank) ? map.out : 0};
}

// What latents for keys and values save of a layer's dense weights. Biases stay.
int64_t LatentSavings(const ModelConfig& config, int64_t layer) {
  if (!config.latent.has_value()) return 0;
  const int64_t width = config.kv_width();
  const int64_t hidden = config.hidden_size;
  const LayerRanks& ranks = config.latent->ranks[static_cast<size_t>(layer)];
  if (config.latent->joint) {
    return ranks.joint < 2 * width ? 2 * width * hidden - ranks.joint * (hidden + 2 * width) : 0;
  }
  const auto savings = [&](int64_t rank) {
    return rank < width ? width * hidden - rank * (hidden + width) : 0;
  };
  return savings(ranks.k) + savings(ranks.v);
}

}  // namespace

LinearCosts DecoderLinearCosts(const ModelConfig& config) {
  LinearCosts total;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const LinearMap& map : LinearMaps(config)) {
      const LinearCosts costs = CostsOf(config, layer, map);
      total.weights += costs.weights;
      total.biases += costs.biases;
    }
    total.weights -= LatentSavings(config, layer);
  }
  return total;
}

double PrefillAttentionMacs(const ModelConfig& config, int64_t length) {
  double pairs = 0;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    // The first `full` queries see all before them, the others a whole window.
    const auto full = static_cast<double>(VisibleKeys(config, layer, length));
    pairs += full * (full + 1) / 2 + (static_cast<double>(length) - full) * full;
  }
  return PairMacs(config) * pairs;
}

double DecodeAttentionMacs(const ModelConfig& config, int64_t context) {
  double macs = 0;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const auto keys = static_cast<double>(VisibleKeys(config, layer, context));
    const double expansion =
        static_cast<double>(config.kv_width()) * static_cast<double>(ExpandedValues(config, layer));
    macs += PairMacs(config) * keys + expansion * (keys - 1);
  }
  return macs;
}

}  // namespace latentforge::checkpoint
