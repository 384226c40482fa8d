// The linear maps of a decoder layer: one table of their names, shapes and biases.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

struct LinearMap {
  absl::string_view key;            // in config.json's ranks: "q", …, "down"
  absl::string_view module;         // "self_attn.q_proj", …, "mlp.down_proj"
  int64_t LinearRanks::*rank = {};  // its member
  int64_t out = 0;
  int64_t in = 0;
  bool source_bias = false;  // the family's own model has a bias here

  // The gate of an MLP without one is absent: out and in are 0.
  bool present() const { return out > 0; }
  int64_t weights() const { return out * in; }
};

// q, k, v, o, gate, up, down.
std::array<LinearMap, 7> LinearMaps(const ModelConfig& config);

// The rank of a map in an artifact of the method low_rank; 0 where it is dense, as in every other
// model.
int64_t RankOf(const ModelConfig& config, int64_t layer, const LinearMap& map);

// Parameters() (rank_rule.h) of a map, without its bias.
int64_t FactorWeights(const LinearMap& map, int64_t rank, bool block_identity);

// The largest rank whose factors hold fewer numbers than the dense map; 0 when there is none.
int64_t LargestRank(const LinearMap& map, bool block_identity);

// True when a map of this rank (0: dense) has a bias.
bool HasBias(const ModelConfig& config, const LinearMap& map, int64_t rank);

}  // namespace latentforge::checkpoint
