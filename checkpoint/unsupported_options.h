// Options of config.json that would change what a model computes and that we do
// not run. Helper of ParseModelConfig.
#pragma once

#include "absl/status/status.h"
#include "base/json.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// Unimplemented, with key and value, for the first such option that is set to
// anything but the value that means "off".
absl::Status RefuseUnsupportedOptions(const JsonObject& object, Family family);

}  // namespace latentforge::checkpoint
