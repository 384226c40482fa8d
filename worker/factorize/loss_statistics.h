// The moments of one attention layer's outputs and gradients, from which its key
// and value projections are factorised with the least expected loss.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/status.h"

namespace latentforge::factorize {

// Of one attention layer. y = [W_K x; W_V x] without bias, before QK-norm and
// RoPE; g = dLoss/dy of the loss summed over positions (nats); n = 2m, the m
// keys first. fp64 on the CPU, uncentred.
struct LossStatistics {
  int64_t tokens = 0;       // positions summed over
  int64_t sequences = 0;    // positions 0 summed over
  at::Tensor output;        // [n, n], E[y y^T] over all positions
  at::Tensor output_first;  // [n, n], E[y y^T] at position 0 of each sequence (attention sink)
  at::Tensor fisher;        // [n, n], E[g g^T] over all positions
  at::Tensor fisher_first;  // [n, n], E[g g^T] over position 0 only
};

// InvalidArgument when a count is not positive, there are more sequences than
// tokens, or a matrix is absent, not [n, n] or not fp64; Internal when a matrix is
// not finite or has a negative diagonal entry (hence also for a negative trace).
// All-zero moments pass: a layer may have no effect on the loss.
absl::Status CheckLossStatistics(const LossStatistics& statistics, int64_t n);

}  // namespace latentforge::factorize
