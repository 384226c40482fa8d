// A pass over layers that sums LinearMoments of each.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "worker/calibrate/layer_pass.h"
#include "worker/calibrate/linear_moments.h"
#include "worker/convert/attempt.h"
#include "worker/convert/layer_progress.h"

namespace latentforge::convert {

using KeepMoments =
    std::function<absl::Status(int64_t layer, const calibrate::LinearMoments& moments)>;

// Gives `keep` the moments of each layer from `finished` on. Borrows attempt, inputs and progress.
calibrate::LayerPassOptions LinearPassOptions(const Attempt& attempt, const Inputs& inputs,
                                              int64_t finished, LayerProgress& progress,
                                              const KeepMoments& keep);

}  // namespace latentforge::convert
