// The search for the smallest cache within a perplexity ratio.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/convert/attempt.h"
#include "worker/convert/layer_factorizer.h"

namespace latentforge::convert {

struct FoundBudget {
  double kv_budget = 1;
  // (cached values a token, log of the perplexity ratio), in the order of the search.
  std::vector<std::pair<int64_t, double>> measured;
};

// Factorises and evaluates caches until the smallest one within the specification's
// max_perplexity_ratio is known; what earlier attempts measured is used. Leaves no factors. A part
// of the factorizing phase; its errors have reasons.
absl::StatusOr<FoundBudget> SearchBudget(Attempt& attempt, const Inputs& inputs,
                                         LayerFactorizer& factorizer);

// Factorises every layer by `ranks` into the scratch folder; layers whose factors are there stay.
absl::Status FactorizeAll(Attempt& attempt, LayerFactorizer& factorizer,
                          const factorize::RankProfile& ranks);

}  // namespace latentforge::convert
