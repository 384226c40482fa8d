// One forward and one backward sweep over the model, layer by layer, for sums over the loss's
// gradients. Memory holds one layer and the sequences of one batch; hidden states and gradients lie
// on disk.
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
#include "absl/strings/string_view.h"
#include "checkpoint/checkpoint.h"
#include "worker/calibrate/sampling.h"
#include "worker/model/layer_graph.h"

namespace latentforge::calibrate {

// Whose log-likelihood is differentiated.
enum class FisherLabels {
  kSampled,  // one label a position, drawn from the model's own softmax: the true Fisher
  kText,     // the next token of the text: the empirical Fisher
};

// What one layer's gradients are summed to. Not safe for concurrent use.
class GradientSums {
 public:
  virtual ~GradientSums() = default;

  // Whole sequences of `length` tokens.
  virtual absl::Status Add(const model::LayerGraph::Gradients& gradients, int64_t length) = 0;

  // Whether AddMlp is to be called, as a model::MlpGradientObserver.
  virtual bool wants_mlp() const { return false; }
  virtual void AddMlp(const at::Tensor& /*gradient*/) {}

  // Keeps the sums; once it returns OK the layer counts as finished.
  virtual absl::Status Save() = 0;
};

struct GradientPassOptions {
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
  // Begins a layer, from the last to the first. An error ends the pass.
  std::function<absl::StatusOr<std::unique_ptr<GradientSums>>(int64_t layer)> begin;
  // Asked between batches; true ends the pass with Cancelled.
  std::function<bool()> stop;
  // Called after each batch: the share of the pass done, the share of it that this
  // run did, and what it is at.
  std::function<void(double share, double worked, absl::string_view detail)> progress;
};

// Runs the sequences forward and back. Deterministic on the CPU, however often it was interrupted.
// InvalidArgument for an artifact that is already converted; errors of loading, computing and
// writing name the layer.
absl::Status RunGradientPass(const checkpoint::Checkpoint& checkpoint,
                             const TokenSequences& sequences, const GradientPassOptions& options);

}  // namespace latentforge::calibrate
