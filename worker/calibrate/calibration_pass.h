// Collects the statistics of keys and values of every layer in one pass over the model.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <functional>

#include "absl/status/status.h"
#include "checkpoint/checkpoint.h"
#include "worker/calibrate/sampling.h"
#include "worker/factorize/preconditioner.h"
#include "worker/factorize/statistics.h"

namespace latentforge::calibrate {

struct CalibrationOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kBFloat16;  // of the forward pass; or kFloat
  factorize::StatisticsNeeds needs;
  // Existing folder for hidden.<l>.bin, the input of layer l.
  std::filesystem::path scratch;
  // Layers below it have been saved by an earlier run over the same sequences.
  int64_t first_layer = 0;
  // Sequences go through a layer together up to this many tokens.
  int64_t batch_tokens = 4096;
  // Keeps a layer's statistics; once it returns OK the layer counts as finished
  // and its inputs are dropped. An error ends the pass.
  std::function<absl::Status(int64_t layer, const factorize::LayerStatistics&)> save;
  // Asked between batches; true ends the pass with Cancelled.
  std::function<bool()> stop;
  // Called after each batch: tokens through `layer` so far.
  std::function<void(int64_t layer, int64_t tokens)> progress;
};

// RunLayerPass with the statistics of keys and values. Errors as there.
absl::Status RunCalibration(const checkpoint::Checkpoint& checkpoint,
                            const TokenSequences& sequences, const CalibrationOptions& options);

}  // namespace latentforge::calibrate
