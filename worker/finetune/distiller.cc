#include "worker/finetune/distiller.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/finetune/distillation_loss.h"
#include "worker/finetune/weight_gradients.h"
#include "worker/model/torch_guard.h"

namespace latentforge::finetune {
namespace {

// The next token of each position; -1 at the end of a sequence.
at::Tensor Labels(const TokenBatch& batch) {
  const auto count = static_cast<int64_t>(batch.ids.size());
  at::Tensor labels = at::full({count}, -1, at::kLong);
  int64_t* const data = labels.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i + 1 < count; ++i) {
    if ((i + 1) % batch.length != 0) data[i] = batch.ids[static_cast<size_t>(i + 1)];
  }
  return labels;
}

}  // namespace

Distiller::Distiller(const checkpoint::Checkpoint& checkpoint, DistillerOptions options,
                     model::Decoder decoder, model::LayerGraph graph)
    : config_(checkpoint.config()),
      options_(std::move(options)),
      loader_(checkpoint, options_.device, options_.dtype),
      decoder_(std::move(decoder)),
      graph_(std::move(graph)) {}

absl::StatusOr<Distiller> Distiller::Create(const checkpoint::Checkpoint& checkpoint,
                                            DistillerOptions options) {
  const checkpoint::ModelConfig& config = checkpoint.config();
  LF_ASSIGN_OR_RETURN(
      model::Decoder decoder,
      model::Decoder::Create(config, options.device, options.dtype, options.longest));
  LF_ASSIGN_OR_RETURN(
      model::LayerGraph graph,
      model::LayerGraph::Create(config, options.device, options.dtype, options.longest));
  Distiller distiller(checkpoint, std::move(options), std::move(decoder), std::move(graph));
  LF_RETURN_IF_ERROR(distiller.LoadHead());
  return distiller;
}

absl::Status Distiller::LoadHead() {
  LF_ASSIGN_OR_RETURN(norm_, loader_.FinalNorm());
  LF_ASSIGN_OR_RETURN(head_, loader_.LmHeadRows(0, config_.vocab_size));
  return absl::OkStatus();
}

// [sequences, T, D].
absl::StatusOr<at::Tensor> Distiller::Embed(const TokenBatch& batch) const {
  LF_ASSIGN_OR_RETURN(const at::Tensor rows, loader_.Embed(batch.ids, batch.length));
  return rows.view({-1, batch.length, config_.hidden_size});
}

// Without factors the teacher's.
absl::StatusOr<at::Tensor> Distiller::NormedStates(const TokenBatch& batch,
                                                   absl::Span<const TrainableWeights> factors) {
  LF_ASSIGN_OR_RETURN(const at::Tensor hidden, Embed(batch));
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    if (stopped()) return absl::CancelledError("healing was stopped");
    LF_ASSIGN_OR_RETURN(model::LayerWeights weights, loader_.Layer(layer));
    if (!factors.empty()) {
      weights = WithTrained(std::move(weights), factors[static_cast<size_t>(layer)]);
    }
    LF_RETURN_IF_ERROR(decoder_.Forward(weights, hidden));
  }
  LF_ASSIGN_OR_RETURN(const at::Tensor normed, decoder_.FinalNorm(hidden, norm_));
  return normed.flatten(0, 1);
}

absl::StatusOr<at::Tensor> Distiller::TeacherStates(const TokenBatch& batch) {
  return NormedStates(batch, {});
}

absl::StatusOr<Distance> Distiller::Measure(const TokenBatch& batch,
                                            const at::Tensor& teacher_states,
                                            absl::Span<const TrainableWeights> factors) {
  LF_ASSIGN_OR_RETURN(const at::Tensor student, NormedStates(batch, factors));
  const DistillationOptions options{.gradient = false, .stop = options_.stop};
  LF_ASSIGN_OR_RETURN(const DistillationLoss loss,
                      Distill(teacher_states, student, head_, Labels(batch), options));
  return Distance{.divergence = loss.divergence, .nll = loss.nll};
}

// Both models side by side, so that each layer's weights are read once. Keeps what each of the
// layers took; gives the student's last states.
absl::StatusOr<at::Tensor> Distiller::Forward(const TokenBatch& batch,
                                              absl::Span<const TrainableWeights> factors,
                                              std::vector<Inputs>& inputs, at::Tensor& teacher) {
  LF_ASSIGN_OR_RETURN(const at::Tensor original, Embed(batch));
  const at::Tensor student = original.clone();
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    if (stopped()) return absl::CancelledError("healing was stopped");
    inputs.push_back({.student = student.clone()});
    if (options_.attention_loss > 0) inputs.back().teacher = original.clone();
    LF_ASSIGN_OR_RETURN(const model::LayerWeights weights, loader_.Layer(layer));
    LF_RETURN_IF_ERROR(decoder_.Forward(weights, original));
    LF_RETURN_IF_ERROR(
        decoder_.Forward(WithTrained(weights, factors[static_cast<size_t>(layer)]), student));
  }
  LF_ASSIGN_OR_RETURN(const at::Tensor normed, decoder_.FinalNorm(original, norm_));
  teacher = normed.flatten(0, 1);
  return student;
}

// `gradient` is the one by the last states, [sequences, T, D]. Takes the inputs one by one; gives
// the attention's loss.
absl::StatusOr<double> Distiller::Backward(absl::Span<const TrainableWeights> factors,
                                           std::vector<Inputs>& inputs, at::Tensor gradient,
                                           std::vector<TrainableWeights>& gradients) {
  const auto layers = static_cast<double>(config_.num_layers);
  double attention_loss = 0;
  for (int64_t layer = config_.num_layers - 1; layer >= 0; --layer) {
    if (stopped()) return absl::CancelledError("healing was stopped");
    LF_ASSIGN_OR_RETURN(const model::LayerWeights weights, loader_.Layer(layer));
    const TrainableWeights& latents = factors[static_cast<size_t>(layer)];
    const Inputs input = std::move(inputs.back());
    inputs.pop_back();
    LF_RETURN_IF_ERROR(model::CatchTorch(
        [&]() -> absl::Status {
          model::AttentionTarget target;
          if (input.teacher.defined()) {
            target = {.output = graph_.AttentionOutput(weights, input.teacher),
                      .weight = options_.attention_loss / layers};
          }
          const model::LayerGraph::Gradients found =
              graph_.Differentiate(WithTrained(weights, latents), input.student, gradient, target);
          attention_loss += found.attention_loss / layers;
          gradients[static_cast<size_t>(layer)] = WeightGradients(latents, found);
          gradient = found.input;
          return absl::OkStatus();
        },
        absl::StrCat("layer ", layer)));
  }
  return attention_loss;
}

absl::StatusOr<Distance> Distiller::Differentiate(const TokenBatch& batch,
                                                  absl::Span<const TrainableWeights> factors,
                                                  std::vector<TrainableWeights>& gradients) {
  std::vector<Inputs> inputs;
  at::Tensor teacher;
  LF_ASSIGN_OR_RETURN(const at::Tensor student, Forward(batch, factors, inputs, teacher));
  Distance distance;
  at::Tensor gradient;
  LF_RETURN_IF_ERROR(model::CatchTorch(
      [&]() -> absl::Status {
        const at::AutoGradMode with_gradients(true);
        const at::Tensor states = student.detach().requires_grad_();
        const at::Tensor normed = graph_.ApplyNorm(states, norm_);
        LF_ASSIGN_OR_RETURN(const DistillationLoss loss,
                            Distill(teacher, normed.detach().flatten(0, 1), head_, Labels(batch),
                                    {.stop = options_.stop}));
        distance = {.divergence = loss.divergence, .nll = loss.nll};
        gradient =
            torch::autograd::grad({normed}, {states}, {loss.gradient.view(normed.sizes())})[0];
        return absl::OkStatus();
      },
      "output head"));
  gradients.assign(factors.size(), TrainableWeights());
  LF_ASSIGN_OR_RETURN(distance.attention, Backward(factors, inputs, gradient, gradients));
  return distance;
}

}  // namespace latentforge::finetune
