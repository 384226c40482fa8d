// How much memory a conversion is expected to take.
#pragma once

#include <cstdint>

#include "checkpoint/estimate.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// The largest resident set of the compute process on the CPU, in bytes; `rank` is that of a latent.
int64_t PeakMemory(const ModelConfig& config, const EstimateSettings& settings, int64_t rank);

}  // namespace latentforge::checkpoint
