// Joint low rank of a layer's value and output projections: latents of values that keep what the
// output projection makes of them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/low_rank/linear.h"
#include "worker/low_rank/tucker.h"

namespace latentforge::low_rank {

// Head i of `heads` reads value head i / (heads / kv_heads).
struct ValueOutputProblem {
  Linear value;   // [kv_heads * head_dim, D]
  Linear output;  // [D', heads * head_dim]
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  // Mean and covariance of x, the input of the value projection. Closer to what reaches the output
  // are those of the contexts X a_i, x averaged by each head's attention a_i: their mean and second
  // moment, averaged over tokens and heads, in the same places.
  InputMoments input;
};

enum class ValueOutputMode {
  // Values alone. The output projection is for the caller to compress on its real input, which the
  // compressed values make: heads' errors add up there as they do, not as if independent.
  kValueOnly,
  kBoth,
};

struct ValueOutputOptions {
  ValueOutputMode mode = ValueOutputMode::kValueOnly;
  // Latents for x - E x; the output projection's bias takes the mean. False: x as it is, and no new
  // bias where the layer has none.
  bool centred = true;
  // delta: the factors are those for C + lambda I, lambda = delta tr(C) / D.
  double damping = 0;
  TuckerOptions solver;
};

struct JointValueOutput {
  // v ~ up (down x), without a bias: see output_bias.
  LowRank value;
  // Present for kBoth, with its bias.
  std::optional<LowRank> output;
  // What takes the place of the original output projection's bias, [D'], whole where `output` is
  // absent; undefined when there is nothing to hold.
  at::Tensor output_bias;
  // What was minimised (on C + lambda I): at the start, then after each half sweep; never rising.
  std::vector<double> losses;
  // ValueOutputLoss of both sides' factors, also for kValueOnly; of each side's own best ones
  // (absent when the start is kHosvd); and of no values at all.
  double loss = 0;
  std::optional<double> local_loss;
  double loss_of_nothing = 0;
};

// Ranks: left of the output, up to min(D', heads * head_dim), which kValueOnly reads as the rank
// that the caller will give it; right of the value, up to min(D, kv_heads * head_dim).
//
// Tucker-2 of G_i = W_o,i W_v,g C^(1/2), with Q_i = W_o,i^T for queries and V_g = W_v,g C^(1/2) for
// keys (LatentLLM slides, "joint VO compression has similar solution"; derived in tucker.h):
// sum_i ||G_i - B_o H_i A_v'||^2 for orthonormal B_o and A_v', B_v,g = V_g A_v'^T, and
// W_o' = B_o [B_o^T W_o,1 ... B_o^T W_o,h], a plain low rank of the whole output projection. It
// takes heads' errors as independent of each other, and one token, or context, for each.
//
// Attention's rows sum to 1, so that constants in values reach the output as W_o times them: biases
// of values and means fold into the output's bias exactly (derived), whatever the attention is.
//
// InvalidArgument for shapes, types and options out of range; OutOfRange for ranks; Internal when
// something is not finite. LibTorch's own exceptions pass through. Thread-safe.
absl::StatusOr<JointValueOutput> CompressValueOutput(const ValueOutputProblem& problem,
                                                     const TuckerRanks& ranks,
                                                     const ValueOutputOptions& options);

// sum_i of the mean of ||W_o,i W_v,g x - W_o,i' W_v,g' x||^2 over tokens, x - E x for x when
// centred, for any stand-ins; without one the output projection is the original. C is not damped.
// Biases are not read. Errors as above, for stand-ins of other shapes too.
absl::StatusOr<double> ValueOutputLoss(const ValueOutputProblem& problem, bool centred,
                                       const LowRank& value, const std::optional<LowRank>& output);

// What ranks cost, without solving for them: bounds of the least loss within a factor of 2, on
// C + lambda I. Errors as above.
absl::StatusOr<TuckerSpectra> ValueOutputSpectra(const ValueOutputProblem& problem,
                                                 const ValueOutputOptions& options);

}  // namespace latentforge::low_rank
