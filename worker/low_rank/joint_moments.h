// What the joint compressions ask of their maps and moments before they start.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/low_rank/linear.h"

namespace latentforge::low_rank {

// InvalidArgument unless the map is [out, in] fp64 with a bias, if any, of [out]; Internal when it
// is not finite. Messages name `name`.
absl::Status CheckLinear(const Linear& linear, int64_t out, int64_t in, absl::string_view name);

// InvalidArgument unless `factors` are [rank, in] and [out, rank] fp64 with a bias, if any, of
// [out].
absl::Status CheckStandIn(const LowRank& factors, int64_t out, int64_t in, absl::string_view name);

// Internal when a factor is not finite.
absl::Status CheckFinite(const LowRank& factors, absl::string_view name);

// InvalidArgument unless kv_heads divide heads and all are at least 1.
absl::Status CheckHeads(int64_t heads, int64_t kv_heads, int64_t head_dim);

// Rows and columns of a matrix; 0 for whatever is none, so that its check fails by name.
int64_t Rows(const at::Tensor& matrix);
int64_t Columns(const at::Tensor& matrix);

// InvalidArgument unless E[x x^T] is [in, in] fp64, Internal unless finite; and of E x, [in], where
// `needs_mean`.
absl::Status CheckMoments(const InputMoments& moments, int64_t in, bool needs_mean);

// InvalidArgument unless finite and at least 0.
absl::Status CheckDamping(double damping);

// C = E[x x^T], or C0 = C - mu mu^T when `centred`; plus lambda I with
// lambda = damping * tr(C) / D. Symmetric.
at::Tensor DampedCovariance(const InputMoments& moments, bool centred, double damping);

// E y = W mu + b, [out].
at::Tensor MeanOutput(const Linear& linear, const at::Tensor& mean);

// The bias with which up (down x) has the map's own mean output (derived: it is the best for any
// factors, as it leaves only the error's covariance): b + (W - up down) mu.
at::Tensor MeanKeepingBias(const Linear& linear, const LowRank& stand_in, const at::Tensor& mean);

}  // namespace latentforge::low_rank
