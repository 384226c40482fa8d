// Collects the moments by which a loss-aware factorisation weighs errors: one
// forward and one backward sweep over the model, layer by layer. Memory holds one
// layer and the sequences of one batch; hidden states and gradients lie on disk.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <functional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "checkpoint/checkpoint.h"
#include "worker/calibrate/sampling.h"
#include "worker/factorize/loss_statistics.h"

namespace latentforge::calibrate {

// Whose log-likelihood is differentiated.
enum class FisherLabels {
  kSampled,  // one label a position, drawn from the model's own softmax: the true Fisher
  kText,     // the next token of the text: the empirical Fisher
};

struct FisherOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kBFloat16;  // of activations and gradients; or kFloat
  FisherLabels labels = FisherLabels::kSampled;
  uint64_t seed = 0;  // of sampled labels
  // Existing folder for hidden.<l>.bin and gradient.<l>.bin: the input of layer l
  // and the loss's gradient by it. What an earlier run over the same sequences left
  // there is used.
  std::filesystem::path scratch;
  // Layers from this one on have been saved by an earlier run; negative: none.
  int64_t finished_from = -1;
  // Sequences go through a layer together up to this many tokens.
  int64_t batch_tokens = 2048;
  // Keeps a layer's statistics, from the last layer to the first; once it returns OK
  // the layer counts as finished. An error ends the pass.
  std::function<absl::Status(int64_t layer, const factorize::LossStatistics&)> save;
  // Asked between batches; true ends the pass with Cancelled.
  std::function<bool()> stop;
  // Called after each batch: the share of the pass done, the share of it that this
  // run did, and what it is at.
  std::function<void(double share, double worked, absl::string_view detail)> progress;
};

// Runs the sequences forward and back. Deterministic on the CPU, however often it
// was interrupted. InvalidArgument for an artifact that
// is already converted; errors of loading, computing and writing name the layer.
absl::Status RunFisherPass(const checkpoint::Checkpoint& checkpoint,
                           const TokenSequences& sequences, const FisherOptions& options);

}  // namespace latentforge::calibrate
