// Fine-tuning: heals the factors of all layers, and leaves them beside those of the
// factorisation in finetune/layer.<l>.safetensors.
#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/convert/attempt.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/healing_files.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/tensor_file.h"
#include "worker/export/tensor_cast.h"
#include "worker/finetune/healer.h"
#include "worker/model/weights.h"

namespace latentforge::convert {
namespace {

using finetune::Healer;
using finetune::HealingState;

// What a killed process loses at most, unless a state takes long to write: that has a twentieth
// of the time.
constexpr absl::Duration kSaveInterval = absl::Minutes(1);
constexpr int kSaveShare = 20;

finetune::HealingOptions Options(const Attempt& attempt) {
  const HealingSpec& spec = *attempt.spec.healing;
  finetune::HealingOptions options;
  options.device = attempt.device;
  options.dtype = attempt.dtype;
  options.learning_rate = spec.learning_rate;
  options.warmup_steps = spec.warmup_steps;
  options.optimizer = spec.optimizer;
  options.muon.weight_decay = spec.weight_decay;
  options.adam.weight_decay = spec.weight_decay;
  options.attention_loss = spec.attention_loss;
  options.evaluate_every = spec.evaluate_every;
  options.stop = [&attempt] { return attempt.stopped(); };
  return options;
}

absl::Status WithHealingReason(const absl::Status& status) {
  return WithReasonByCode(status, {{absl::StatusCode::kDataLoss, "CHECKPOINT_CORRUPT"},
                                   {absl::StatusCode::kNotFound, "CHECKPOINT_CORRUPT"},
                                   {absl::StatusCode::kPermissionDenied, "SCRATCH_NOT_WRITABLE"}});
}

// The factors of the factorisation, and what else of the original is trained.
absl::StatusOr<HealingState> Start(const Attempt& attempt, const checkpoint::Checkpoint& source) {
  const model::WeightLoader loader(source, at::kCPU, at::kFloat);
  std::vector<finetune::TrainableWeights> initial;
  for (int64_t layer = 0; layer < source.config().num_layers; ++layer) {
    LF_ASSIGN_OR_RETURN(const exporter::ConvertedLayer factors,
                        LoadLayer(FactorsPath(attempt.work, layer)));
    finetune::TrainableWeights weights = ToTrainableWeights(factors);
    if (attempt.spec.healing->attention) {
      const auto load = [&](const char* name) {
        return loader.Tensor(checkpoint::LayerTensor(layer, name), at::kFloat);
      };
      LF_ASSIGN_OR_RETURN(weights.q, load("self_attn.q_proj.weight"));
      LF_ASSIGN_OR_RETURN(weights.o, load("self_attn.o_proj.weight"));
    }
    initial.push_back(std::move(weights));
  }
  return finetune::StartHealing(initial, attempt.spec.healing->optimizer, source.config().head_dim);
}

// Turns what the healer observes into events.
class Reporter {
 public:
  Reporter(Attempt& attempt, const Inputs& inputs, int64_t steps, int64_t done)
      : attempt_(attempt), inputs_(inputs), steps_(steps), before_(inputs.training.Tokens(done)) {}

  // Of this attempt.
  int64_t tokens(const HealingState& state) const {
    return inputs_.training.Tokens(state.steps_done()) - before_;
  }

  void Step(const HealingState& state) {
    const double seconds = absl::ToDoubleSeconds(attempt_.clock.Monotonic() - attempt_.phase_start);
    const double speed = seconds > 0 ? double(tokens(state)) / seconds : 0;
    attempt_.events.Healing({.step = state.steps_done(),
                             .steps_total = steps_,
                             .loss = state.steps.back().loss,
                             .learning_rate = state.steps.back().learning_rate,
                             .tokens_per_second = speed});
    attempt_.progress.Update(double(state.steps_done()) / double(steps_), double(tokens(state)),
                             absl::StrCat("step ", state.steps_done(), " of ", steps_));
  }

  void Measurement(const HealingState& state) {
    if (state.measurements.empty()) return;
    const finetune::HealingMeasurement& last = state.measurements.back();
    attempt_.events.Healing({.step = last.step,
                             .steps_total = steps_,
                             .divergence = last.divergence,
                             .perplexity = last.perplexity});
  }

 private:
  Attempt& attempt_;
  const Inputs& inputs_;
  int64_t steps_;
  int64_t before_;
};

// The best matrices in the output's format, with the errors of the factorisation.
absl::Status SaveHealed(const Attempt& attempt, const Inputs& inputs, const HealingState& state) {
  for (size_t l = 0; l < state.layers.size(); ++l) {
    NamedTensors tensors;
    for (const auto& [name, tensor] : std::as_const(state.layers[l].best).Named()) {
      if (!tensor->defined()) continue;
      LF_ASSIGN_OR_RETURN(const at::Tensor rounded,
                          exporter::CastTensor(*tensor, inputs.output_dtype, "healed matrix"));
      tensors.emplace_back(name, rounded);
    }
    if (tensors.empty()) continue;
    LF_RETURN_IF_ERROR(
        SaveTensors(HealedFactorsPath(attempt.work, static_cast<int64_t>(l)), tensors));
  }
  return absl::OkStatus();
}

absl::StatusOr<Healing> Train(Attempt& attempt, const Inputs& inputs) {
  LF_ASSIGN_OR_RETURN(Healer healer,
                      Healer::Create(inputs.checkpoint, inputs.training, Options(attempt)));
  Healing healing{.steps = healer.steps()};
  LF_ASSIGN_OR_RETURN(healing.state, Start(attempt, inputs.checkpoint));
  HealingState& state = healing.state;
  const std::filesystem::path path = HealingStatePath(attempt.work);
  LF_RETURN_IF_ERROR(LoadHealingState(path, state).status());
  Reporter reporter(attempt, inputs, healing.steps, state.steps_done());
  attempt.progress.Resume(double(state.steps_done()) / double(healing.steps));
  absl::Duration saved = attempt.clock.Monotonic();
  absl::Duration interval = kSaveInterval;
  const auto save = [&](const HealingState& now) {
    const absl::Duration begin = attempt.clock.Monotonic();
    const absl::Status status = SaveHealingState(path, now);
    saved = attempt.clock.Monotonic();
    interval = std::max(kSaveInterval, kSaveShare * (saved - begin));
    return status;
  };
  const absl::Status status =
      healer.Run(state, {.step = [&](const HealingState& now) -> absl::Status {
                           reporter.Step(now);
                           if (attempt.clock.Monotonic() - saved < interval)
                             return absl::OkStatus();
                           return save(now);
                         },
                         .measurement =
                             [&](const HealingState& now) {
                               reporter.Measurement(now);
                               return save(now);
                             }});
  if (absl::IsCancelled(status)) LF_RETURN_IF_ERROR(save(state));
  LF_RETURN_IF_ERROR(status);
  healing.tokens = reporter.tokens(state);
  LF_RETURN_IF_ERROR(SaveHealed(attempt, inputs, state));
  return healing;
}

}  // namespace

absl::StatusOr<Healing> HealLayers(Attempt& attempt, const Inputs& inputs) {
  absl::StatusOr<Healing> healing = Train(attempt, inputs);
  if (!healing.ok()) return WithHealingReason(Annotate(healing.status(), "healing"));
  if (!healing->state.ended_early.empty()) {
    attempt.events.Warning(absl::StrCat("healing ended after ", healing->state.steps_done(), " of ",
                                        healing->steps, " steps: ", healing->state.ended_early,
                                        "; the factors of step ", healing->state.best_step(),
                                        " are kept"));
  }
  return healing;
}

}  // namespace latentforge::convert
