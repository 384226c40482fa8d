// What normalising queries and keys per head (Qwen3) makes of the errors of their projections.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/low_rank/linear.h"
#include "worker/low_rank/rope_metric.h"

namespace latentforge::low_rank {

// Moments of one projection's heads y_j as y_j^ = gain o y_j / rms(y_j), before RoPE.
struct NormedHeads {
  at::Tensor second;    // [heads, d, d] fp64, E[y_j^ y_j^^T]
  at::Tensor loudness;  // [heads] fp64, omega_j = E[||x||^2 / rms(y_j)^2] / E||x||^2
};

// The norms' learned gains and what they make of the original model's heads.
struct QueryKeyNorm {
  at::Tensor query_gain;  // [d] fp64
  at::Tensor key_gain;    // [d] fp64
  NormedHeads query;
  NormedHeads key;
};

// Of a sample of inputs x [D, n], fp64; rms(y)^2 = mean y^2 + epsilon. InvalidArgument when shapes
// disagree; Internal when a head is silent and epsilon is 0, or something is not finite.
absl::StatusOr<NormedHeads> MeasureNormedHeads(const Linear& projection, const at::Tensor& gain,
                                               double epsilon, const at::Tensor& x);

// InvalidArgument unless the shapes are those of `heads` and `kv_heads` of `head_dim`; Internal
// when something is not finite.
absl::Status CheckQueryKeyNorm(const QueryKeyNorm& norm, int64_t heads, int64_t kv_heads,
                               int64_t head_dim);

// Metrics on the errors of unnormalised queries and keys under which their sum is the error of the
// normalised scores, to first order (derived: an error dq of q moves the score with k^ by
// (g o dq)^T R k^ / rms(q); for independent tokens its mean square is
// dq^T diag(g) E[R k^ k^^T R^T] diag(g) dq / rms(q)^2, and omega is what 1 / rms^2 counts over C's
// tokens; errors of both sides meet only in the second order):
//   S_i = omega_i diag(g_q) mean_D(R E[k_g^ k_g^^T] R^T) diag(g_q)
//   S_g = omega_g diag(g_k) sum_{i in g} mean_D(R^T E[q_i^ q_i^^T] R) diag(g_k)
// One C serves all heads: that 1 / rms^2 weights tokens differently in each is neglected, and so is
// that errors along q itself are normalised away. Neither side's metric depends on the other's
// latents, so that each side is solved once.
at::Tensor NormedQueryMetrics(const QueryKeyNorm& norm, const std::optional<RopeMetric>& rope);
at::Tensor NormedKeyMetrics(const QueryKeyNorm& norm, const std::optional<RopeMetric>& rope);

}  // namespace latentforge::low_rank
