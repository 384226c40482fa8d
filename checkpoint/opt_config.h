// What config.json says about an OPT decoder. Helper of ParseModelConfig.
#pragma once

#include "absl/status/status.h"
#include "base/json.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// Fills what sets the family apart: LayerNorm and where it stands, learned positions, an MLP
// without a gate, biases, the width of the embedding. Sizes and heads must be set. Meaning and
// defaults as in transformers 5.17 (OPTConfig). Unimplemented for LayerNorms without weights and
// for a last norm that was taken out; InvalidArgument for heads that do not make up the hidden
// size.
absl::Status ParseOptDecoder(const JsonObject& object, ModelConfig& config);

}  // namespace latentforge::checkpoint
