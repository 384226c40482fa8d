// Low-rank factors of which one holds an identity matrix, which is neither stored nor multiplied.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/low_rank/linear.h"

namespace latentforge::low_rank {

enum class IdentitySide {
  kLeft,   // r rows of `up` are the identity
  kRight,  // r columns of `down` are the identity
};

// y = up (down x) + bias with an identity in one of the factors (LatentLLM, "Junction Matrix").
// Right: z = x[p1] + rest x[p2], y = other z + bias. Left: z = other x, y[p1] = z, y[p2] = rest z,
// both + bias. p1 are the first r of `pivots`, p2 the others.
struct IdentityFactors {
  at::Tensor pivots;  // [in] (right) or [out] (left), int64; p1 and p2 ascend
  at::Tensor rest;    // [r, in - r] (right) or [out - r, r] (left)
  at::Tensor other;   // [out, r] (right) or [r, in] (left)
  bool right = true;
  at::Tensor bias;  // [out]; undefined when there is none

  int64_t rank() const { return other.size(right ? 1 : 0); }
};

// Brings fp64 factors into that form; their product stays the same, whatever their scale.
//
// Right: with J = down[:, p1], down' = J^-1 down and up' = up J. The slides print J = [V]_{:r},
// which gives an identity for P = I alone; the columns of V P^+ do for every P. The pivots are
// those of an LU of down^T with partial pivoting, exchanged until no element of `rest` is above 2:
// an exchange at an element t multiplies |det J| by |t| and costs a rank-one update. J^-1 is never
// formed. Left: the same of the transposes, J = up[p1, :]^-1.
//
// InvalidArgument for shapes that do not fit together, for a type other than fp64, for a rank above
// the side's size, and when the rows of `down` (columns of `up`) depend on each other to rounding,
// with the number of independent ones: no identity of rank r exists, lower the rank. Internal when
// a factor is not finite. LibTorch's own exceptions pass through.
absl::StatusOr<IdentityFactors> ToIdentity(const LowRank& factors, IdentitySide side);

// The same map with both factors whole.
LowRank Expand(const IdentityFactors& factors);

// y [n, out] of x [n, in], without a product with the identity.
at::Tensor Apply(const IdentityFactors& factors, const at::Tensor& x);

// Numbers in `rest` and `other`, r (out + in - r): Parameters() of RankRule::kBlockIdentity. The
// pivots, which are indices, and the bias come on top.
int64_t StoredNumbers(const IdentityFactors& factors);

}  // namespace latentforge::low_rank
