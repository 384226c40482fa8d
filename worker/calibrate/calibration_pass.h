// Collects the statistics of every layer in one pass over the model, layer by
// layer: memory holds one layer, the sequences of one batch and one layer's sums.
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

// Runs the sequences through layers first_layer to the last. When the hidden
// states of first_layer are not in scratch, the pass starts at layer 0 and saves
// nothing below first_layer. InvalidArgument for an artifact that is already
// converted; errors of loading, computing and writing name the layer.
absl::Status RunCalibration(const checkpoint::Checkpoint& checkpoint,
                            const TokenSequences& sequences, const CalibrationOptions& options);

// The file of the input of `layer`.
std::filesystem::path HiddenPath(const std::filesystem::path& scratch, int64_t layer);

}  // namespace latentforge::calibrate
