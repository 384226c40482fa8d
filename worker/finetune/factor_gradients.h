// From the gradients by keys and values to those by the latent factors.
#pragma once

#include "worker/finetune/latent_factors.h"

namespace latentforge::finetune {

// x [N, D] is what the projections take, key and value [N, m] are dL/dK and dL/dV before
// QK-norm and RoPE. With c = x · downᵀ: dL/d up = gᵀ c and dL/d down = (g · up)ᵀ x, the latent's
// own gradient being the sum over K and V where it serves both. Products in fp32, results too.
// LibTorch's exceptions pass through.
LatentFactors FactorGradients(const LatentFactors& factors, const at::Tensor& x,
                              const at::Tensor& key, const at::Tensor& value);

}  // namespace latentforge::finetune
