// The Tucker-2 decomposition that attention's pairs of projections share: queries with keys, and
// the output projection with values. Solved by alternating between its two modes (HOOI).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/low_rank/rope_metric.h"
#include "worker/low_rank/tucker_mode.h"

namespace latentforge::low_rank {

// Which bilinear forms two modes make: block i of the left (h of them) with block g = i / (h / n)
// of the right (n of them, grouped-query attention), G_i = Q_i^T K_g.
//
// The objective (LatentLLM slides, joint QK compression, equation 14) is
//   sum_i ||G_i - A_l'^T H_i A_r'||^2, with H_i = B_i^T B_g,
// and with RoPE its mean over lags, sum_D w_D of the same with Q_i^T R_{-D} K_g. For rows A_l' and
// A_r' kept orthonormal the best core is H_i = A_l' G_i A_r'^T, so that B_i = Q_i A_l'^T and
// B_g = K_g A_r'^T: the same at every lag (derived: R stands between the factors). Means that are
// kept exactly add, for independent pairs of inputs of mean 0, what a mean on one side makes of
// the other side's error: ||q_i^T R (K_g - K_g')||^2 and ||(Q_i - Q_i')^T R k_g||^2.
struct TuckerCoupling {
  at::Tensor left_mean;            // [h, width], q_i; undefined: 0
  at::Tensor right_mean;           // [n, width], k_g; undefined: 0
  std::optional<RopeMetric> rope;  // of the same width
};

// Metrics S_i of the left mode, [h, width, width], given the right mode's E[k_g k_g^T] [n, ...]:
// the mean over lags of R (E[k_g k_g^T] + k_g k_g^T) R^T.
at::Tensor LeftMetrics(const TuckerCoupling& coupling, int64_t left_blocks,
                       const at::Tensor& right_energy);

// Metrics S_g of the right mode, [n, width, width], given the left mode's [h, ...]: the sum over
// the group, the mean over lags, of R^T (E[q_i q_i^T] + q_i q_i^T) R.
at::Tensor RightMetrics(const TuckerCoupling& coupling, int64_t right_blocks,
                        const at::Tensor& left_energy);

struct TuckerRanks {
  int64_t left = 0;
  int64_t right = 0;
};

// OutOfRange unless each rank is from 1 to its mode's max_rank(); names them so.
absl::Status CheckRanks(const TuckerMode& left, const TuckerMode& right, const TuckerRanks& ranks,
                        absl::string_view left_name, absl::string_view right_name);

struct TuckerPair {
  ModeBasis left;
  ModeBasis right;
};

// Each side's own best latents, whatever the other side is: S = I, the root-covariance SVD.
absl::StatusOr<TuckerPair> LocalPair(const TuckerMode& left, const TuckerMode& right,
                                     const TuckerRanks& ranks);

// Where the alternation starts.
enum class TuckerStart {
  kHosvd,  // left latents for the whole right side, then the right ones for those
  kLocal,  // LocalPair
  kBoth,   // from either; the lower loss is kept, so that it never exceeds the local one
};

struct TuckerOptions {
  TuckerStart start = TuckerStart::kBoth;
  int64_t sweeps = 8;       // at most, at least 0; a sweep solves each mode once
  double tolerance = 1e-6;  // stops when a sweep takes no more than this share of the loss
};

// InvalidArgument for sweeps or a tolerance below 0 or not finite.
absl::Status CheckOptions(const TuckerOptions& options);

struct TuckerSolution {
  TuckerPair pair;
  // The objective at the start that was kept, then after each half sweep: never rising but for
  // rounding, since a half sweep is optimal given the other side.
  std::vector<double> losses;
  // Present unless the start is kHosvd.
  std::optional<TuckerPair> local;
};

// Internal when a product is not finite. Thread-safe.
absl::StatusOr<TuckerSolution> SolveTucker(const TuckerMode& left, const TuckerMode& right,
                                           const TuckerCoupling& coupling, const TuckerRanks& ranks,
                                           const TuckerOptions& options);

// What every pair of ranks costs, at the price of one eigenvalue problem a side. With l_k the
// eigenvalues of the left mode against the whole right side, and r_k the other way round, the
// least loss at ranks (a, b) lies between the larger and the sum of their tails (derived: the
// error of two projections is (I - P) G + P G (I - P'), whose parts are orthogonal, the first at
// least and at best the left tail, the second at most the right one).
struct TuckerSpectra {
  std::vector<double> left;  // descending, never negative
  std::vector<double> right;

  // Sums of the tails: at most twice AtLeast, hence at most twice the optimum. Ranks from 0;
  // beyond the spectrum's end nothing is lost.
  double AtMost(const TuckerRanks& ranks) const;
  double AtLeast(const TuckerRanks& ranks) const;
};

absl::StatusOr<TuckerSpectra> SpectraOf(const TuckerMode& left, const TuckerMode& right,
                                        const TuckerCoupling& coupling);

}  // namespace latentforge::low_rank
