// What to tell about texts that are longer than a model was made for.
#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// "sequences of 4096 tokens are longer than the model's context of 2048": `what` of
// `tokens` tokens. Empty when they fit, or when the model names no context.
std::string ContextWarning(const ModelConfig& config, const std::string& what, int64_t tokens);

}  // namespace latentforge::checkpoint
