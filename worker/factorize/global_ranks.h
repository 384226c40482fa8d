// Divides one budget of cached values over all latents of a model at once, so that
// the predicted loss of the whole model is the least.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/factorize/rank_allocation.h"

namespace latentforge::factorize {

struct GlobalRankOptions {
  // No latent gets less, unless the budget is too small for that. Rounded up to
  // `multiple` and capped at the latent's width.
  int64_t floor = 8;
  // Ranks are multiples of this or the latent's full width.
  int64_t multiple = 1;
};

// One rank for each problem (a latent and its spectrum, descending, as long as the
// latent is wide, all in the same unit of loss), their sum at most `values`, with
// the least sum of discarded spectrum values. A rank equal to the width means that
// the projection stays dense. Equal gains go to the earliest problem; values left
// over are spent even where nothing is gained.
// Greedy over groups of `multiple` values by their mean, which is the exact minimum
// when every width is a multiple; otherwise the shorter last groups can leave it
// short of the minimum by less than one group's worth.
// When the floors do not fit, all of them are lowered to the largest common floor
// (a multiple) that does. OutOfRange when even ranks of one multiple do not fit.
// InvalidArgument for options below 1, for no or empty spectra, for one that is not
// finite, negative or not descending. FailedPrecondition when all spectra are zero, which
// tells nothing.
absl::StatusOr<std::vector<int64_t>> AllocateGlobally(int64_t values, const Spectra& spectra,
                                                      const GlobalRankOptions& options);

// 1/2 sum over problems of what lies beyond their rank: nats a token. Ranks are
// clamped to the widths; a problem without a rank is discarded whole.
double PredictedLoss(const Spectra& spectra, const std::vector<int64_t>& ranks);

// (cached values, predicted loss) of up to `points` budgets (at least 2), evenly
// spaced from the least at which the floors fit to the full widths; both ends are
// part. The values are those really used, strictly ascending; the loss never rises. Errors
// as AllocateGlobally.
absl::StatusOr<std::vector<std::pair<int64_t, double>>> LossCurve(const Spectra& spectra,
                                                                  const GlobalRankOptions& options,
                                                                  int64_t points);

}  // namespace latentforge::factorize
