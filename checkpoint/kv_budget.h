// Cache sizes: bytes per token, and ranks that a budget allows.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/dtype.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// Cached values per token over all layers: 2 * kv_width * num_layers, for an
// artifact the sum of the ranks of its keys and values, the width where they are dense.
int64_t KvValuesPerToken(const ModelConfig& config);

// The same in bytes, the cache being of type `dtype`.
int64_t KvBytesPerToken(const ModelConfig& config, DType dtype);

// Bytes per token that a rank profile caches.
int64_t KvBytesPerToken(const std::vector<LayerRanks>& ranks, DType dtype);

// Rank values that all layers together may use.
struct RankTotals {
  int64_t k = 0;
  int64_t v = 0;
};

// The largest totals with k = v and k / (kv_width * num_layers) <= budget.
// InvalidArgument when budget is not in (0, 1], or too small for rank 1 in every
// layer (the message names the smallest feasible budget).
absl::StatusOr<RankTotals> RankTotalsForBudget(const ModelConfig& config, double budget);

// The largest total of joint ranks; errors as above.
absl::StatusOr<int64_t> JointRankTotalForBudget(const ModelConfig& config, double budget);

// How a rank allocation divides a budget.
struct RankRules {
  bool joint = false;    // one latent a layer instead of one for K and one for V
  bool uniform = false;  // the same rank in every latent
  int64_t multiple = 1;  // ranks are multiples of this or the latent's full width
};

// OK when `budget` leaves every latent its least rank: `multiple`, or the full width of a
// narrower one. OutOfRange names the budget, what it leaves, the least that every latent
// needs, and the budget and the multiple that would do; InvalidArgument when budget is not
// in (0, 1] or multiple below 1.
absl::Status CheckRanksFit(const ModelConfig& config, double budget, const RankRules& rules);

// The smallest budget that gives every layer rank 1 for K and for V.
double SmallestBudget(const ModelConfig& config);

}  // namespace latentforge::checkpoint
