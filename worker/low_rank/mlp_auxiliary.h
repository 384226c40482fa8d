// The auxiliary values of LatentLLM's joint UD compression and their updates: what each layer of an
// MLP should have computed, so that the compressed layers around it lose least together.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/low_rank/mlp.h"

namespace latentforge::low_rank {

// The weights of the decoupled loss (LatentLLM, "Decoupled Loss Minimization"), of which only the
// ratios matter:
//   L4 = alpha |W_u x - Z|^2 + beta |Z' - sigma(Z)|^2 + gamma |W_d Z' - y|^2,
// for SwiGLU with the gate's own values S (SparseLLM's pattern):
//   L4 = alpha |W_u x - Z|^2 + alpha_g |W_g x - S|^2 + beta |Z' - silu(S) Z|^2
//        + gamma |W_d Z' - y|^2.
// The slides print W_u and W_d; they are the current compressed maps with their biases, because
// with the original ones L4 starts at 0, and y is the original's output. All are above 0.
struct Penalties {
  double alpha = 1;
  double alpha_gate = 1;  // kSwiGlu only
  double beta = 1;
  double gamma = 1;
};

// InvalidArgument when one is not a finite number above 0.
absl::Status CheckPenalties(const Penalties& penalties);

// Z' given the rest: (gamma W^T W + beta I)^-1 (beta sigma(Z) + gamma W^T (y - b)), W = up down of
// rank r. Instead of the f x f inverse it takes one of r x r, because with the residual
// e = y - b - W sigma(Z), by the push-through identity,
//   Z' - sigma(Z) = gamma W^T (gamma W W^T + beta I)^-1 e
//                 = gamma down^T (gamma up^T up down down^T + beta I)^-1 up^T e.
// Immutable; safe for concurrent use.
class HiddenUpdate {
 public:
  // Internal when the r x r solve is not finite.
  static absl::StatusOr<HiddenUpdate> Prepare(const LowRank& down, const Penalties& penalties);

  // Z' [n, f] from sigma(Z) [n, f] and y [n, d].
  at::Tensor operator()(const at::Tensor& activated, const at::Tensor& y) const;

 private:
  HiddenUpdate() = default;

  LowRank down_;
  at::Tensor correction_;  // [r, f]
};

// Z of ReLU given the rest, element by element: with Z- = W_u x (`fitted`) and
// Z+ = (alpha Z- + beta Z') / (alpha + beta), either max(Z+, 0) or min(Z-, 0), whichever loses
// less. It is the global minimum: on each side of 0 the loss is a parabola.
at::Tensor UpdatedReluValues(const at::Tensor& fitted, const at::Tensor& hidden,
                             const Penalties& penalties);

// Z of SwiGLU given the rest: (alpha Z- + beta silu(S) Z') / (alpha + beta silu(S)^2).
at::Tensor UpdatedUpValues(const at::Tensor& fitted, const at::Tensor& gate,
                           const at::Tensor& hidden, const Penalties& penalties);

// S given the rest: `steps` of Newton's method from `gate`, element by element, on
// g(s) = alpha_g (s - s-)^2 + beta (z' - silu(s) z)^2, with Gauss and Newton's curvature where g's
// own is small, and shortened where that lowers g further. g never rises; the end is a stationary
// point, which for silu need not be the global minimum.
at::Tensor UpdatedGateValues(const at::Tensor& gate, const at::Tensor& fitted, const at::Tensor& up,
                             const at::Tensor& hidden, const Penalties& penalties, int64_t steps);

// Z (and S) given the rest by the above: Z first, then S.
InnerRows UpdatedInnerRows(Activation activation, const InnerRows& inner, const InnerRows& fitted,
                           const at::Tensor& hidden, const Penalties& penalties,
                           int64_t gate_steps);

// L4 summed over tokens; `fitted` is W_u x (and W_g x) and y the original's outputs.
double DecoupledLoss(Activation activation, const InnerRows& inner, const InnerRows& fitted,
                     const at::Tensor& hidden, const LowRank& down, const at::Tensor& y,
                     const Penalties& penalties);

}  // namespace latentforge::low_rank
