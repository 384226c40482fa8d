// The search for the smallest cache within a perplexity ratio.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/convert/attempt.h"
#include "worker/convert/layer_factorizer.h"

namespace latentforge::convert {

// Of the factorizing phase.
inline constexpr double kSearchShare = 0.95;

struct FoundBudget {
  double kv_budget = 1;
  // (cached values a token, log of the perplexity ratio) where that is finite, in the order of
  // the search.
  std::vector<std::pair<int64_t, double>> measured;
};

// The log of a candidate's perplexity over the original's: infinite where its evaluation gave
// values that are not finite, which fails that candidate alone. Other errors are the search's.
absl::StatusOr<double> CandidateLoss(const absl::StatusOr<evaluate::PerplexityResult>& candidate,
                                     double perplexity_base);

// Factorises and evaluates caches until the smallest one within the specification's
// max_perplexity_ratio is known; what earlier attempts measured is used. Leaves no factors, and
// the windows of the one that was found where EvaluateBoth looks for them. A part of the
// factorizing phase.
absl::StatusOr<FoundBudget> SearchBudget(Attempt& attempt, const Inputs& inputs,
                                         LayerFactorizer& factorizer);

}  // namespace latentforge::convert
