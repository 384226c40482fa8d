// The joint objective of any stand-ins for a pair of maps, whoever made them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/low_rank/tucker.h"

namespace latentforge::low_rank {

// One side of a pair: what it is, what stands for it, and the moments it is compared on.
struct TuckerSide {
  at::Tensor weight;    // W [blocks * width, D]
  at::Tensor stand_in;  // W' [blocks * width, D]
  at::Tensor moments;   // C [D, D]; undefined: I
};

// sum_i of the mean over lags of ||C_l^(1/2) (W_i^T R W_g - W_i'^T R W_g') C_r^(1/2)||^2, blocks of
// `width` rows being paired as in TuckerCoupling: for queries and keys the mean squared error of
// the scores over independent pairs of inputs. A mean counts where the weights hold a column for it
// and the moments are those of [x; 1]. From the moments of the errors themselves, so that a small
// loss keeps its digits.
double TuckerLoss(const TuckerSide& left, const TuckerSide& right, int64_t width,
                  const std::optional<RopeMetric>& rope);

}  // namespace latentforge::low_rank
