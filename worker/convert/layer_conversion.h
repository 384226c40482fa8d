// The original's layers as the artifact will have them.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>

#include "absl/status/status.h"
#include "worker/convert/attempt.h"
#include "worker/export/artifact_writer.h"
#include "worker/model/weights.h"

namespace latentforge::convert {

// The type that the artifact's weights are rounded to; absent where it is the source's.
std::optional<at::ScalarType> RoundedType(const Inputs& inputs);

// Puts `factors`, as they are stored, in the place of the layer's own matrices, where there are
// some, and rounds the others where the artifact has another type than the source. The device
// and the type of the computation stay those of `weights`. Errors as CatchTorch.
absl::Status ConvertLayer(const Inputs& inputs, const exporter::ConvertedLayer& factors,
                          model::LayerWeights& weights);

}  // namespace latentforge::convert
