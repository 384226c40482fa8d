// An MLP's maps into its inner width compressed for what they do to its outputs: the closed form
// beside the alternation of joint UD compression (ours; derived).
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "worker/low_rank/mlp.h"
#include "worker/low_rank/mlp_fit.h"

namespace latentforge::low_rank {

enum class InnerMap { kUp, kGate };

// S [f, f] of a map into the inner width. An error e of its values moves the outputs, to first
// order, by W_d (s * e) with the slopes s = dh / dvalue of the original at this token, which costs
//   E|W_d (s * e)|^2 = e^T S e with S = (W_d^T W_d) * E[s s^T]
// (* element by element) where e does not depend on s. s is the mask of up x > 0 for ReLU,
// silu(g) for `up` and u silu'(g) for `gate` of SwiGLU. Positive semidefinite (Schur).
// One pass with f^2 multiplications a token; holds S in fp64, 2.1 GB at f = 16,384, and blocks of
// W_d^T W_d, which is less than a refit of `down` holds (RefitDown). Errors as CheckMlp and
// VisitChunks; InvalidArgument for the gate of a ReLU.
absl::StatusOr<at::Tensor> OutputMetric(const Mlp& original, InnerMap map, const MlpTokens& tokens);

// `up`, then `gate`, each fitted to the original's values under its S by RankRegression, whose
// eigenproblem is [d, d] where d < f and takes neither root nor inverse of S; then `down` refitted
// to the real activations. Two passes and one more for a gate, besides that over the inputs'
// moments. Errors as OutputMetric, CheckRanks and RankRegression. Safe for concurrent use.
// LibTorch's own exceptions pass through.
absl::StatusOr<MlpCompression> CompressMlpForOutputs(const Mlp& original, const MlpRanks& ranks,
                                                     const MlpTokens& tokens,
                                                     const MlpFitOptions& options);

}  // namespace latentforge::low_rank
