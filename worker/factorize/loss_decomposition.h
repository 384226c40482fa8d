// The factorisation of one attention layer's key and value projections that loses
// the least of the model's own likelihood, at every rank at once.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/factorize/decomposition.h"
#include "worker/factorize/loss_statistics.h"

namespace latentforge::factorize {

// What one latent stands for.
enum class LatentPart {
  kJoint,  // keys and values together, n = 2m wide
  kKey,    // the keys alone, m wide
  kValue,  // the values alone, m wide
};

struct LossMetricOptions {
  // alpha in C = (1 - alpha) C_all + alpha C_0: what position 0, which every later
  // position attends to, counts beyond its share of the tokens. From 0 to 1.
  double sink_weight = 0.125;
  // lambda: added to G as lambda times its mean diagonal, to keys and values each
  // with their own mean. At least 0.
  double ridge = 1e-3;
  // False: G = I, that is output PCA (for comparison); the spectrum is then in
  // units of squared outputs, not nats.
  bool fisher = true;
};

// The spectrum of LossDecomposition alone, in a third of the time; the same but for rounding.
// Errors as there.
absl::StatusOr<std::vector<double>> LossSpectrum(const LossStatistics& statistics, LatentPart part,
                                                 const LossMetricOptions& options);

// With G = E[g g^T] (ridge added), M = G^(1/2) and C as above, the expected loss of
// W' is 1/2 tr(G (W - W') C (W - W')^T), the Gauss-Newton form of the KL divergence
// under G (x) C. Its least at rank r follows from M W C W^T M = U diag(e) U^T:
// W' = (M^-1 U_r) (U_r^T M W), with a loss of 1/2 sum_{i>r} e_i. Needs only the
// n x n moments W C W^T = E[y y^T].
// Immutable; safe for concurrent use. Shares the storage of `weight` and of the
// moments, which must not change.
class LossDecomposition {
 public:
  // `weight` is [n, D] fp64, the rows of W_K, then of W_V, for any `part`.
  // InvalidArgument when options are out of range or shapes disagree; Internal
  // when a tensor or a product is not finite; else as CheckLossStatistics. A part
  // without any Fisher information gets a spectrum of zeros and the basis of G = I.
  // LibTorch's own exceptions pass through.
  static absl::StatusOr<LossDecomposition> Compute(const at::Tensor& weight,
                                                   const LossStatistics& statistics,
                                                   LatentPart part,
                                                   const LossMetricOptions& options);

  // n for the joint latent, else m.
  int64_t width() const { return static_cast<int64_t>(spectrum_.size()); }

  // e, descending, never negative.
  const std::vector<double>& spectrum() const { return spectrum_; }

  // 1/2 sum_{i>rank} e_i, nats a token, for a rank from 0 to the width (clamped).
  double PredictedLoss(int64_t rank) const;

  // (E||y - y'||^2 / E||y||^2)^(1/2) of the keys or the values, over all positions
  // alike (no sink weight), for a rank from 0 to the width (clamped). 0 where that
  // half is not part of the latent or its outputs are all zero. Costs a few
  // width x width products a call.
  double RelativeKeyError(int64_t rank) const;
  double RelativeValueError(int64_t rank) const;

  // down = U_r^T M W [r, D], up = M^-1 U_r [width, r]: the joint latent's up holds
  // the rows of the keys first. Rank 1 to the width, OutOfRange otherwise; exact at
  // the width. Gauge::kOrthonormal leaves them so (orthonormal in the metric);
  // kUnitRms measures the latents over all positions alike.
  absl::StatusOr<Factors> FactorsOf(int64_t rank, Gauge gauge) const;

 private:
  LossDecomposition() = default;

  double RelativeError(int64_t rank, LatentPart half) const;

  LatentPart part_ = LatentPart::kJoint;
  at::Tensor weight_;             // [width, D]
  at::Tensor output_;             // [width, width], E[y y^T] over all positions
  at::Tensor encoder_;            // [width, width], M U
  at::Tensor decoder_;            // [width, width], M^-1 U
  std::vector<double> spectrum_;  // [width]
  std::vector<double> energy_;    // [width], E (u_i^T M y)^2 over all positions
};

}  // namespace latentforge::factorize
