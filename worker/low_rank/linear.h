// The linear maps of a decoder layer and what stands in for them: the common terms of LatentLLM's
// compressions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace latentforge::low_rank {

// y = W x + b of the original model, in fp64.
struct Linear {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out]; undefined when there is none
};

// Its stand-in: y = up (down x) + bias.
struct LowRank {
  at::Tensor down;  // [r, in]
  at::Tensor up;    // [out, r]
  at::Tensor bias;  // [out]; undefined when there is none

  int64_t rank() const { return down.size(0); }
};

// Moments of a map's input x over the calibration tokens, in fp64.
struct InputMoments {
  int64_t tokens = 0;
  at::Tensor mean;        // [in], E x
  at::Tensor mean_abs;    // [in], E |x_j|; only diagonal-l1 asks for it
  at::Tensor covariance;  // [in, in], E[x x^T], not centred
};

}  // namespace latentforge::low_rank
