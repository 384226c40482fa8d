// Texts that are longer than what a model was trained for.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// What to say when `what` ("windows") of `tokens` tokens are longer than the model's context; empty
// when they are not. Models with RoPE run all the same.
std::string ContextWarning(const ModelConfig& config, const std::string& what, int64_t tokens);

// InvalidArgument with that text where they cannot run: the model has learned an embedding for each
// position of its context, and none beyond.
absl::Status CheckContext(const ModelConfig& config, const std::string& what, int64_t tokens);

}  // namespace latentforge::checkpoint
