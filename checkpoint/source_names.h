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

// The same where the files were saved from the model without its head, as OPT's first ones were:
// "decoder.layers.3.fc1.bias". SourceName for all that has no such names.
std::string BareSourceName(const ModelConfig& config, absl::string_view name);

}  // namespace latentforge::checkpoint
