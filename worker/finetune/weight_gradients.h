// From the gradients by what a layer's projections give to those by its trainable matrices.
#pragma once

#include "worker/finetune/trainable_weights.h"
#include "worker/model/layer_graph.h"

namespace latentforge::finetune {

// For a layer that computed with `weights`. With c = x · downᵀ and g the gradient by keys or
// values: dL/d up = gᵀ c and dL/d down = (g · up)ᵀ x, the latent's own gradient being the sum over
// K and V where it serves both; of a dense matrix dL/dW = gᵀ x. Products of the
// activations' type, results in fp32.
// LibTorch's exceptions pass through.
TrainableWeights WeightGradients(const TrainableWeights& weights,
                                 const model::LayerGraph::Gradients& layer);

}  // namespace latentforge::finetune
