// The object "latentforge" of an artifact's config.json (docs/artifact.md). Helper of
// ParseModelConfig.
#pragma once

#include "absl/status/status.h"
#include "base/json.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

// Sets config.latent (format version 1) or config.low_rank (2) from `section`; the sizes of
// `config` are set. InvalidArgument names the key, its value and what was expected; Unimplemented
// for other versions and methods.
absl::Status ParseArtifactSection(const JsonObject& section, ModelConfig& config);

}  // namespace latentforge::checkpoint
