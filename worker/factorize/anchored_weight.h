// Key and value projections of one layer fitted to what the already converted layers
// before it really feed it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/factorize/loss_statistics.h"

namespace latentforge::factorize {

// Moments of the input of one layer's K and V projections: x_o in the original model, x_c
// behind the converted layers before this one, at the same position of the same text.
// fp64 on the CPU, uncentred.
struct AnchorMoments {
  int64_t tokens = 0;          // positions averaged over
  int64_t sequences = 0;       // positions 0 averaged over
  at::Tensor converted;        // [D, D], E[x_c x_c^T] over all positions
  at::Tensor converted_first;  // [D, D], the same at position 0 of each sequence
  at::Tensor cross;            // [D, D], E[x_o x_c^T] over all positions
  at::Tensor cross_first;      // [D, D], the same at position 0 of each sequence
};

struct AnchorOptions {
  // alpha in C = (1 - alpha) C_all + alpha C_0, for both moments: that of the loss metric. From
  // 0 to 1.
  double sink_weight = 0.125;
  // d is this times the mean diagonal of C_cc. At least 0.
  double damping = 1e-2;
};

// W' = W (C_oc + d I) (C_cc + d I)^-1 [n, D] fp64, of `weight` [n, D] fp64 (any rows: each is
// fitted alone). With d = 0 it is the regression of the original's outputs W x_o on x_c; d
// draws it towards W, which it is where both streams are the same. Then, for every V,
// E|W x_o - V x_c|^2 = E|(W' - V) x_c|^2 + what no V reaches, in any metric of the outputs,
// so that factorising W' under C_cc is the reduced-rank regression of the original's outputs
// (docs/architecture.md, "The anchored pass").
// InvalidArgument when an option is out of range, or a matrix is absent, of another shape or
// not fp64; Internal when one is not finite or C_cc + d I is singular. Safe for concurrent
// use. LibTorch's own exceptions pass through.
absl::StatusOr<at::Tensor> AnchoredWeight(const at::Tensor& weight, const AnchorMoments& moments,
                                          const AnchorOptions& options);

// What LossDecomposition needs to factorise W' [n, D]: the moments W' C W'^T of its outputs
// on the converted inputs, and the Fisher information of `original`, which is that of the
// original's outputs. Shapes as AnchoredWeight found them; checked by CheckLossStatistics.
LossStatistics AnchoredStatistics(const at::Tensor& anchored_weight, const AnchorMoments& moments,
                                  const LossStatistics& original);

}  // namespace latentforge::factorize
