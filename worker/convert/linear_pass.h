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

struct LinearPassStart {
  int64_t finished = 0;   // layers before it have their moments
  bool mlp_rows = false;  // the inputs of each MLP go to MlpRowsPath too
};

// Gives `keep` the moments of each layer that has none. Borrows attempt, inputs and progress.
calibrate::LayerPassOptions LinearPassOptions(const Attempt& attempt, const Inputs& inputs,
                                              const LinearPassStart& start, LayerProgress& progress,
                                              const KeepMoments& keep);

// Of MlpRowsPath: whole sequences of the inputs of one layer's MLP, in the type of the computation.
calibrate::HiddenShape MlpRowsShape(const Attempt& attempt, const Inputs& inputs);

// Those that go back too, for the Fisher information: spread over the texts.
calibrate::TokenSequences SequencesOfGradient(const calibrate::TokenSequences& all);

}  // namespace latentforge::convert
