// What both halves of an estimate, time and memory, count by.
#pragma once

#include <cstdint>

#include "checkpoint/estimate.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// Elements of the weights of one layer.
int64_t LayerParameters(const ModelConfig& config);

// Elements of a layer's moments of gradients, with kLinear: of the outputs of q, k, v, o and down,
// and of those of gate and up the diagonal.
int64_t GradientMoments(const ModelConfig& config);

// Sequences that go back with kLinear, of those of the calibration.
int64_t SequencesOfGradient(const EstimateSettings& settings);

}  // namespace latentforge::checkpoint
