// A pass over layers that sums LinearMoments of each.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "worker/calibrate/hidden_file.h"
#include "worker/calibrate/layer_pass.h"
#include "worker/calibrate/linear_moments.h"
#include "worker/convert/attempt.h"
#include "worker/convert/layer_progress.h"

namespace latentforge::convert {

using KeepMoments =
    std::function<absl::Status(int64_t layer, const calibrate::LinearMoments& moments)>;

// Gives `keep` the moments of each layer from `finished` on; where an MLP's maps are compressed
// together, its inputs lie in MlpRowsPath then. Borrows attempt, inputs and progress.
calibrate::LayerPassOptions LinearPassOptions(const Attempt& attempt, const Inputs& inputs,
                                              int64_t finished, LayerProgress& progress,
                                              const KeepMoments& keep);

// Of MlpRowsPath: whole sequences of the inputs of one layer's MLP, in the type of the computation.
calibrate::HiddenShape MlpRowsShape(const Attempt& attempt, const Inputs& inputs);

}  // namespace latentforge::convert
