// Healing: brings the latent factors of a converted model closer to the original by gradient
// descent on the divergence of their predictions.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "worker/finetune/distiller.h"
#include "worker/finetune/matrix_slot.h"
#include "worker/finetune/relative_adam.h"
#include "worker/finetune/relative_muon.h"
#include "worker/finetune/trainable_weights.h"
#include "worker/finetune/training_text.h"

namespace latentforge::finetune {

struct HealingOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kBFloat16;  // of activations and gradients; or kFloat
  // The largest relative step; 0: that of SuitableRate.
  double learning_rate = 0;
  int64_t warmup_steps = 5;
  Optimizer optimizer = Optimizer::kMuon;
  MuonOptions muon;
  AdamOptions adam;
  double attention_loss = 0;  // DistillerOptions::attention_loss
  // Gradients are shortened together to this norm, measured in nats for changes of each element
  // by the root mean square of its latent.
  double clip = 1;
  int64_t evaluate_every = 20;
  // Ends after this many measurements without a better one in the second half of the steps: large
  // steps hold the divergence up, and it falls with their size. In the first half only after as
  // many in a row above `hopeless` times the divergence at the start.
  int64_t patience = 4;
  double hopeless = 1.5;
  std::function<bool()> stop;  // asked between layers; true ends with Cancelled
};

// The learning rate for a model that starts `divergence` nats a token from the original. What is
// to be repaired is a relative error of the order of its root; larger steps only add noise. In a
// long run noise adds up, and a model that is near already has less to gain than it costs: its
// steps are smaller still. Measured on SmolLM2: docs/quality.md.
double SuitableRate(double divergence, int64_t steps);

// One step of training, or a measurement on the held-back text after `step` steps.
struct HealingStep {
  int64_t step = 0;  // from 1
  double loss = 0;   // divergence from the original on the step's own text, nats a token
  double learning_rate = 0;
  double gradient_norm = 0;  // before clipping, in the unit of HealingOptions::clip
};
struct HealingMeasurement {
  int64_t step = 0;       // 0: before the first
  double divergence = 0;  // nats a token
  double perplexity = 0;
};

// Everything that a run needs to go on where another one stopped, with the same bytes.
struct HealingState {
  struct Layer {
    std::array<MatrixSlot, TrainableWeights::kCount>
        slots;              // as TrainableWeights::Named; undefined where that is
    TrainableWeights best;  // fp32
  };
  std::vector<Layer> layers;
  std::vector<HealingStep> steps;                // that were made
  std::vector<HealingMeasurement> measurements;  // with rising steps
  std::string ended_early;                       // why, for people; empty: all steps were made

  int64_t steps_done() const { return static_cast<int64_t>(steps.size()); }
  // The first measurement of the least divergence; the end where there is none.
  std::vector<HealingMeasurement>::const_iterator Best() const;
  // The step of Best, whose factors are the layers' best; 0 where there is none.
  int64_t best_step() const { return Best() == measurements.end() ? 0 : Best()->step; }
};

// The state before the first step: trains from `initial`, one of each layer, of any type, heads
// being `head_dim` wide. Those in fp32 are taken over without a copy, as the best ones so far.
HealingState StartHealing(const std::vector<TrainableWeights>& initial, Optimizer optimizer,
                          int64_t head_dim);

// Whether the last `patience` measurements are all above `hopeless` times the start, or those of
// the second half of `steps` neither beat an earlier one nor fall.
bool GivesUp(const HealingState& state, int64_t steps, const HealingOptions& options);

// Borrows checkpoint and text. Not safe for concurrent use.
class Healer {
 public:
  static absl::StatusOr<Healer> Create(const checkpoint::Checkpoint& checkpoint,
                                       const TrainingText& text, HealingOptions options);

  int64_t steps() const;

  // Told after each step and each measurement; an error ends the run.
  struct Observer {
    std::function<absl::Status(const HealingState&)> step;
    std::function<absl::Status(const HealingState&)> measurement;
  };

  // Goes on from a state that StartHealing or an observer gave, until all steps are made, or until
  // it does not get better, or until a loss or a gradient is not finite: then `ended_early` says so
  // and the best factors stay as they are. On the CPU the result does not depend on
  // interruptions. Errors: InvalidArgument for a state of another number of layers, those of
  // Distiller but for that, and those of the observer; the state
  // is then that of the last whole step.
  absl::Status Run(HealingState& state, const Observer& observer);

 private:
  Healer(const TrainingText& text, HealingOptions options, Distiller distiller, size_t layers)
      : text_(text),
        options_(std::move(options)),
        distiller_(std::move(distiller)),
        layers_(layers) {}

  absl::Status Measure(HealingState& state);
  absl::Status Train(HealingState& state);
  std::vector<TrainableWeights> Computed(const HealingState& state) const;

  const TrainingText& text_;
  HealingOptions options_;
  Distiller distiller_;
  size_t layers_;
  at::Tensor teacher_states_;
};

}  // namespace latentforge::finetune
