// Takes calibration tokens through the model layer by layer: memory holds one layer, the sequences
// of one batch and what is summed over them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "worker/calibrate/sampling.h"
#include "worker/model/decoder.h"
#include "worker/model/weights.h"

namespace latentforge::calibrate {

// What one layer's states are summed to. Not safe for concurrent use.
class LayerSums {
 public:
  virtual ~LayerSums() = default;

  // Rows of one point, as model::LayerObserver gives them.
  virtual absl::Status Add(model::LayerPoint point, const at::Tensor& rows) = 0;

  // Keeps the sums; once it returns OK the layer counts as finished and its inputs are dropped.
  virtual absl::Status Save() = 0;
};

struct LayerPassOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kBFloat16;  // of the forward pass; or kFloat
  // Existing folder for hidden.<l>.bin, the input of layer l.
  std::filesystem::path scratch;
  // Layers below it have been saved by an earlier run over the same sequences.
  int64_t first_layer = 0;
  // Sequences go through a layer together up to this many tokens.
  int64_t batch_tokens = 4096;
  // Begins a layer.
  std::function<absl::StatusOr<std::unique_ptr<LayerSums>>(int64_t layer)> begin;
  // Changes a layer's weights, once it is saved, to those whose outputs the next layer gets: each
  // layer then takes the tokens twice. None: the original's.
  std::function<absl::Status(int64_t layer, model::LayerWeights& weights)> change;
  // Asked between batches; true ends the pass with Cancelled.
  std::function<bool()> stop;
  // Called after each batch: tokens through `layer` so far.
  std::function<void(int64_t layer, int64_t tokens)> progress;
};

// Runs the sequences through layers first_layer to the last. When the hidden states of first_layer
// are not in scratch, the pass starts at layer 0 and begins nothing below first_layer.
// InvalidArgument for an artifact that is already converted; errors of loading, computing and
// writing name the layer.
absl::Status RunLayerPass(const checkpoint::Checkpoint& checkpoint, const TokenSequences& sequences,
                          const LayerPassOptions& options);

// The file of the input of `layer`.
std::filesystem::path HiddenPath(const std::filesystem::path& scratch, int64_t layer);

}  // namespace latentforge::calibrate
