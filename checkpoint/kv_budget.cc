#include "checkpoint/kv_budget.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::checkpoint {
namespace {

// The largest n with n / total <= budget, in the arithmetic in which anybody
// would check it. Rounding the product alone gives 28 for 0.29 * 100.
int64_t LargestShare(double budget, int64_t total) {
  auto count = static_cast<int64_t>(std::floor(budget * static_cast<double>(total)));
  const auto share = [total](int64_t n) {
    return static_cast<double>(n) / static_cast<double>(total);
  };
  while (count < total && share(count + 1) <= budget) ++count;
  while (count > 0 && share(count) > budget) --count;
  return count;
}

absl::Status CheckBudget(double budget) {
  if (budget > 0 && budget <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("KV budget is ", budget, ", expected a number above 0 and at most 1"));
}

// The share of `width` values per layer, where every layer needs at least
// `smallest` of them.
absl::StatusOr<int64_t> TotalForBudget(const ModelConfig& config, double budget, int64_t width,
                                       int64_t smallest) {
  LF_RETURN_IF_ERROR(CheckBudget(budget));
  const int64_t total = LargestShare(budget, width * config.num_layers);
  if (total < smallest * config.num_layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV budget ", budget, " gives ", total, " cached values for ", config.num_layers,
        " layers, expected at least ", smallest, " per layer: the smallest feasible budget is ",
        static_cast<double>(smallest) / static_cast<double>(width)));
  }
  return total;
}

}  // namespace

int64_t KvValuesPerToken(const ModelConfig& config) {
  if (!config.converted()) return 2 * config.kv_width() * config.num_layers;
  int64_t values = 0;
  if (config.low_rank.has_value()) {
    const auto cached = [width = config.kv_width()](int64_t rank) {
      return rank > 0 ? rank : width;
    };
    for (const LinearRanks& ranks : config.low_rank->ranks) {
      values += cached(ranks.k) + cached(ranks.v);
    }
    return values;
  }
  for (const LayerRanks& ranks : config.latent->ranks) values += ranks.total();
  return values;
}

int64_t KvBytesPerToken(const ModelConfig& config, DType dtype) {
  return KvValuesPerToken(config) * BytesOf(dtype);
}

int64_t KvBytesPerToken(const std::vector<LayerRanks>& ranks, DType dtype) {
  int64_t values = 0;
  for (const LayerRanks& layer : ranks) values += layer.total();
  return values * BytesOf(dtype);
}

absl::StatusOr<RankTotals> RankTotalsForBudget(const ModelConfig& config, double budget) {
  LF_ASSIGN_OR_RETURN(const int64_t total, TotalForBudget(config, budget, config.kv_width(), 1));
  return RankTotals{total, total};
}

absl::StatusOr<int64_t> JointRankTotalForBudget(const ModelConfig& config, double budget) {
  return TotalForBudget(config, budget, 2 * config.kv_width(), 1);
}

absl::Status CheckRanksFit(const ModelConfig& config, double budget, const RankRules& rules) {
  LF_RETURN_IF_ERROR(CheckBudget(budget));
  if (rules.multiple < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank multiple is ", rules.multiple, ", expected at least 1"));
  }
  const int64_t width = config.kv_width() * (rules.joint ? 2 : 1);
  const int64_t latents = rules.uniform ? 1 : config.num_layers * (rules.joint ? 1 : 2);
  const int64_t least = std::min(rules.multiple, width);
  const int64_t values = LargestShare(budget, latents * width);
  if (values >= latents * least) return absl::OkStatus();
  const std::string each =
      rules.uniform ? "each latent" : absl::StrCat(latents, " latents together");
  std::string problem = absl::StrCat("KV budget is ", budget, ", which leaves ", each, " ", values,
                                     " of ", latents * width, " values a token, expected at least ",
                                     latents * least, ", a budget of at least ",
                                     static_cast<double>(least) / static_cast<double>(width));
  if (rules.multiple > 1 && values >= latents) {
    absl::StrAppend(&problem, ", or a rank multiple of at most ", values / latents, " (it is ",
                    rules.multiple, ")");
  }
  return absl::OutOfRangeError(problem);
}

double SmallestBudget(const ModelConfig& config) {
  return 1.0 / static_cast<double>(config.kv_width());
}

}  // namespace latentforge::checkpoint
