// The junction matrix J between the factors of one product: which of the infinitely many pairs of
// factors is stored.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "worker/low_rank/block_identity.h"
#include "worker/low_rank/linear.h"

namespace latentforge::low_rank {

// With U S V = svd_r[W P], up = U S J and down = J^+ V P^+ (LatentLLM, "Junction Matrix"); the
// product is the same for every J.
enum class Junction {
  kLeftSingular,   // J = I: up = U S, down = V P^+
  kRightSingular,  // J = S^+: up = U, down = S V P^+
  kSymmetric,      // J = [S^(1/2)]^+: up = U S^(1/2), down = S^(1/2) V P^+
  kLeftIdentity,   // J = [U S]^+ of r pivot rows: up holds an identity
  kRightIdentity,  // J = [V P^+] of r pivot columns: down holds an identity
};

// The factors with another junction, both whole; ToIdentity stores the identities of the last two
// forms nowhere.
//
// `factors` are those of the right singular junction (LocalDecomposition::At) and
// `singular_values` S, descending, of which the first rank() count. The bias does not change.
// InvalidArgument when a junction divides by S and there are fewer singular values than the rank or
// one is not above 0 (the product then has a smaller rank), or as ToIdentity says; Internal when a
// quotient is not finite. LibTorch's own exceptions pass through.
absl::StatusOr<LowRank> Join(const LowRank& factors, const std::vector<double>& singular_values,
                             Junction junction);

}  // namespace latentforge::low_rank
