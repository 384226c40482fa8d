// What a family's own checkpoints call the tensors of the catalogue.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// The name in the checkpoint's files of the tensor that tensor_catalogue.h calls `name`: for an OPT
// model of "model.layers.3.mlp.up_proj.bias" "model.decoder.layers.3.fc1.bias". The same name for
// artifacts and for every other family.
std::string SourceName(const ModelConfig& config, absl::string_view name);

}  // namespace latentforge::checkpoint
