// Walks the layers in order with two streams of hidden states, what the original model feeds
// each layer and what the already converted layers before it feed it, and has each layer
// converted against both. Memory holds one layer, the sequences of one batch and one layer's
// moments; the streams lie on disk.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "checkpoint/checkpoint.h"
#include "worker/calibrate/sampling.h"
#include "worker/factorize/anchored_weight.h"
#include "worker/model/weights.h"

namespace latentforge::calibrate {

struct AnchorPassOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kBFloat16;  // of the streams; or kFloat
  // Existing folder for original.<l>.bin and converted.<l>.bin, the input of layer l in both
  // models. What an earlier run over the same sequences and factors left there is used.
  std::filesystem::path scratch;
  // For each layer: whether `convert` can convert it already.
  std::vector<bool> finished;
  // Sequences go through a layer together up to this many tokens.
  int64_t batch_tokens = 4096;
  // Makes the factors of a layer that is not finished, and keeps them; `convert` is asked for
  // it afterwards. An error ends the pass.
  std::function<absl::Status(int64_t layer, const factorize::AnchorMoments&)> factorize;
  // Turns the original's layer into the converted one, as it will be published.
  std::function<absl::Status(int64_t layer, model::LayerWeights&)> convert;
  // Asked between batches; true ends the pass with Cancelled.
  std::function<bool()> stop;
  // Called after each batch: the share of the pass done, the share of it that this run did, and
  // what it is at.
  std::function<void(double share, double worked, absl::string_view detail)> progress;
};

// Has every layer factorised that is not finished, in order, and leaves no file behind.
// Begins at the last layer up to the first unfinished one whose streams are whole, else at
// layer 0; deterministic on the CPU, however often it was interrupted. InvalidArgument for an
// artifact that is already converted; errors of loading, computing and writing name the layer.
absl::Status RunAnchorPass(const checkpoint::Checkpoint& checkpoint,
                           const TokenSequences& sequences, const AnchorPassOptions& options);

}  // namespace latentforge::calibrate
