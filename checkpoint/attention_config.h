// The parts of config.json that decide how attention sees positions: RoPE and
// sliding windows. Helpers of ParseModelConfig.
#pragma once

#include "absl/status/status.h"
#include "base/json.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// Fills rope_theta and rope_scaling; head_dim and max_position_embeddings must be set.
// Unimplemented for RoPE types other than "default" and "llama3".
absl::Status ParseRope(const JsonObject& object, ModelConfig& config);

// Fills sliding_window; family and num_layers must be set.
absl::Status ParseSlidingWindows(const JsonObject& object, const Json& json, ModelConfig& config);

}  // namespace latentforge::checkpoint
