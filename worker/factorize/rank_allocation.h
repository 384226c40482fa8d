// Divides a budget of cached values between the layers of one projection kind.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::factorize {

enum class RankAllocation {
  kUniform,   // the same rank in every layer
  kCare,      // CARE as its paper states it
  kCareCode,  // CARE as its public code computes it
  kGlobal,    // least predicted loss over all layers, keys and values: AllocateGlobally
};

// Ranks of one layer; the full width means that the projection stays dense.
struct LayerRanks {
  int64_t key = 0;    // 0 with a joint latent
  int64_t value = 0;  // 0 with a joint latent
  int64_t joint = 0;  // 0 with separate latents

  friend bool operator==(const LayerRanks&, const LayerRanks&) = default;
};
using RankProfile = std::vector<LayerRanks>;

// Squared singular values of W C^(1/2) of one projection kind, by layer; each
// descending, as long as the projection is wide.
using Spectra = std::vector<std::vector<double>>;

// The largest number of cached values that is at most budget * values. A budget
// such as 2/3 counts as exact although its double lies a rounding below.
int64_t ValuesWithin(double budget, int64_t values);

// One rank a layer, each from 1 to the layer's width, their sum at most
// ValuesWithin(budget, sum of widths).
// kUniform: ValuesWithin(budget, narrowest width), rounded down to a multiple of `multiple`,
//   which the others must leave at 1; a layer of exactly the unrounded width stays whole.
// kCare: from a quarter of the uniform rank, one rank at a time to the layer with the highest
//   sigma_{r+1}^2 / sum_{i>r} sigma_i^2 (paper, eq. 1), up to the width.
// kCareCode: the same from half the uniform rank up to twice it, with the score times
//   sqrt((L - l) / ((L + 1) / 2)) / sqrt(r / r_min).
// Equal scores go to the earlier layer. InvalidArgument for a budget outside
// (0, 1], for kGlobal, which is not a matter of one projection kind, and for a multiple
// that is not allowed; OutOfRange for a budget that leaves a layer less than one value, or
// less than `multiple` and its width.
absl::StatusOr<std::vector<int64_t>> AllocateRanks(RankAllocation allocation, double budget,
                                                   const Spectra& spectra, int64_t multiple = 1);

// OK when the profile has one entry for each of `layers` layers, with ranks from
// 1 to `width`, in a joint layout joint ones to twice the width, and at most
// ValuesWithin(budget, 2 * layers * width) values. OutOfRange names the layer and the rank.
absl::Status CheckProfile(const RankProfile& profile, int64_t layers, int64_t width, bool joint,
                          double budget);

}  // namespace latentforge::factorize
