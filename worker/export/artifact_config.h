// config.json of an artifact.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "checkpoint/dtype.h"
#include "checkpoint/model_config.h"

namespace latentforge::exporter {

// The source's config.json with the keys of docs/artifact.md changed or added; all
// other keys stay, in their order. Format version 1 for latents of keys and values, 2 for
// low-rank maps. InvalidArgument when the source is an artifact itself or the ranks do not fit
// the model.
absl::StatusOr<std::string> ArtifactConfigText(absl::string_view source_config,
                                               const checkpoint::LatentConfig& latent,
                                               checkpoint::DType dtype);
absl::StatusOr<std::string> ArtifactConfigText(absl::string_view source_config,
                                               const checkpoint::LowRankConfig& low_rank,
                                               checkpoint::DType dtype);

// "float32" for F32, and so on; weight types only.
absl::string_view TorchNameOf(checkpoint::DType dtype);

}  // namespace latentforge::exporter
