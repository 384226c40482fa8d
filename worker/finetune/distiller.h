// One step of distillation through a whole model, layer by layer: memory holds one layer's
// weights, the input of every layer for the tokens of a step, and the output head.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "checkpoint/checkpoint.h"
#include "worker/finetune/trainable_weights.h"
#include "worker/finetune/training_text.h"
#include "worker/model/decoder.h"
#include "worker/model/layer_graph.h"
#include "worker/model/weights.h"

namespace latentforge::finetune {

struct DistillerOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kBFloat16;  // of activations and gradients; or kFloat
  int64_t longest = 0;                   // tokens in a sequence, at most
  // Of the mean over layers of ||a - t||^2 / ||t||^2, added to the divergence: a and t are what the
  // student's and the teacher's attention give, each on its own hidden states.
  double attention_loss = 0;
  // Asked before each layer; true ends with Cancelled.
  std::function<bool()> stop;
};

// How far the student is from the teacher on some text.
struct Distance {
  double divergence = 0;  // mean KL(teacher || student), nats a token
  double nll = 0;         // the student's mean -log p(next token), nats
  // The mean of DistillerOptions::attention_loss, where Differentiate was asked for it.
  double attention = 0;
};

// The teacher is the checkpoint, the student the same with latents for K and V. Borrows
// the checkpoint. Not safe for concurrent use. Errors name the layer: those of
// model::WeightLoader, InvalidArgument for ids outside the vocabulary, DataLoss when the loss is
// not finite, Cancelled, ResourceExhausted. A batch's sequences may be as long as `longest`.
class Distiller {
 public:
  static absl::StatusOr<Distiller> Create(const checkpoint::Checkpoint& checkpoint,
                                          DistillerOptions options);

  // The loss of a batch and its gradients by the factors in fp32. factors: one of each layer, in
  // the computation's type.
  absl::StatusOr<Distance> Differentiate(const TokenBatch& batch,
                                         absl::Span<const TrainableWeights> factors,
                                         std::vector<TrainableWeights>& gradients);

  // The teacher's last states, normed: what Measure compares with.
  absl::StatusOr<at::Tensor> TeacherStates(const TokenBatch& batch);

  absl::StatusOr<Distance> Measure(const TokenBatch& batch, const at::Tensor& teacher_states,
                                   absl::Span<const TrainableWeights> factors);

 private:
  // What a layer took, [B, T, D].
  struct Inputs {
    at::Tensor student;
    at::Tensor teacher;  // where the attention's loss needs it
  };

  Distiller(const checkpoint::Checkpoint& checkpoint, DistillerOptions options,
            model::Decoder decoder, model::LayerGraph graph);

  absl::StatusOr<at::Tensor> Embed(const TokenBatch& batch) const;
  absl::StatusOr<at::Tensor> NormedStates(const TokenBatch& batch,
                                          absl::Span<const TrainableWeights> factors);
  absl::Status LoadHead();
  absl::StatusOr<at::Tensor> Forward(const TokenBatch& batch,
                                     absl::Span<const TrainableWeights> factors,
                                     std::vector<Inputs>& inputs, at::Tensor& teacher);
  absl::StatusOr<double> Backward(absl::Span<const TrainableWeights> factors,
                                  std::vector<Inputs>& inputs, at::Tensor gradient,
                                  std::vector<TrainableWeights>& gradients);
  bool stopped() const { return options_.stop && options_.stop(); }

  const checkpoint::ModelConfig& config_;
  DistillerOptions options_;
  model::WeightLoader loader_;
  model::Decoder decoder_;
  model::LayerGraph graph_;
  at::Tensor head_;  // [vocabulary, D]
  model::Norm norm_;
};

}  // namespace latentforge::finetune
