#include "checkpoint/linear_maps.h"

#include <algorithm>

#include "checkpoint/rank_rule.h"

namespace latentforge::checkpoint {

std::array<LinearMap, 7> LinearMaps(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t queries = config.q_width();
  const int64_t width = config.kv_width();
  using Ranks = LinearRanks;
  LinearMap gate = {"gate", "mlp.gate_proj", &Ranks::gate, inner, hidden, config.mlp_bias};
  if (!config.gated()) gate = {gate.key, gate.module, gate.rank};
  return {{{"q", "self_attn.q_proj", &Ranks::q, queries, hidden, config.qkv_bias},
           {"k", "self_attn.k_proj", &Ranks::k, width, hidden, config.qkv_bias},
           {"v", "self_attn.v_proj", &Ranks::v, width, hidden, config.qkv_bias},
           {"o", "self_attn.o_proj", &Ranks::o, hidden, queries, config.o_bias},
           gate,
           {"up", "mlp.up_proj", &Ranks::up, inner, hidden, config.mlp_bias},
           {"down", "mlp.down_proj", &Ranks::down, hidden, inner, config.mlp_bias}}};
}

int64_t RankOf(const ModelConfig& config, int64_t layer, const LinearMap& map) {
  if (!config.low_rank.has_value()) return 0;
  return config.low_rank->ranks[static_cast<size_t>(layer)].*map.rank;
}

int64_t FactorWeights(const LinearMap& map, int64_t rank, bool block_identity) {
  return Parameters(block_identity ? RankRule::kBlockIdentity : RankRule::kNaive, map.out, map.in,
                    rank);
}

int64_t LargestRank(const LinearMap& map, bool block_identity) {
  if (!map.present()) return 0;
  // r (in + out - r) grows up to r = min(out, in), where it is out * in.
  if (block_identity) return std::min(map.out, map.in) - 1;
  return (map.weights() - 1) / (map.out + map.in);
}

bool HasBias(const ModelConfig& config, const LinearMap& map, int64_t rank) {
  return map.source_bias || (rank > 0 && config.low_rank->bias);
}

}  // namespace latentforge::checkpoint
