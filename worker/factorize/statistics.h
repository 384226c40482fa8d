// The calibration moments of one attention layer, from which its key and value
// projections are factorised.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace latentforge::factorize {

// Moments of the input x of k_proj and v_proj (D channels) over the calibration
// tokens; fp64.
struct InputStatistics {
  int64_t tokens = 0;
  at::Tensor mean_abs;     // [D], E|x_j|
  at::Tensor mean_square;  // [D], E x_j^2; its sum is E||x||^2
  at::Tensor covariance;   // [D, D], E[x x^T], uncentred; undefined unless needed
};

// Moments of one projection's output y = W x, before bias, norm and RoPE; fp64.
struct OutputStatistics {
  at::Tensor gram;   // [m, m], E[y y^T]
  at::Tensor cross;  // [m, D], E[y x^T]; undefined unless needed
};

struct LayerStatistics {
  InputStatistics input;
  OutputStatistics key;
  OutputStatistics value;
};

}  // namespace latentforge::factorize
