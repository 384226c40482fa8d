// What the tests of one compressed map share: moments and products of the factorisation's slow
// references.
#pragma once

#include <ATen/ATen.h>

#include "tests/worker/factorize/reference.h"
#include "worker/low_rank/linear.h"
#include "worker/low_rank/local_decomposition.h"

namespace latentforge::low_rank {

inline InputMoments MomentsOf(const factorize::Problem& p) {
  return {.tokens = p.x.size(1),
          .mean = p.x.mean(1),
          .mean_abs = p.x.abs().mean(1),
          .covariance = p.covariance};
}

inline WideMoments WideMomentsOf(const factorize::Problem& p) {
  return {.mean = p.x.mean(1),
          .mean_abs = p.x.abs().mean(1),
          .mean_square = p.x.square().mean(1),
          .output_gram = p.output.gram};
}

// W' itself.
inline at::Tensor Product(const LowRank& low) { return at::matmul(low.up, low.down); }

}  // namespace latentforge::low_rank
