#include "worker/finetune/healer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <numeric>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "worker/finetune/learning_rate.h"
#include "worker/model/parallel.h"
#include "worker/model/torch_guard.h"

namespace latentforge::finetune {
namespace {

using Layer = HealingState::Layer;

// What reads the hidden state has a latent, or a query's element, in each row; what writes keys,
// values or hidden states takes one in each column. Queries and attention's output are made of
// heads.
MatrixKind KindOf(absl::string_view name, int64_t head_dim) {
  const bool reads = absl::EndsWith(name, "down") || name == "q";
  return {.axis = reads ? LatentAxis::kRows : LatentAxis::kColumns,
          .block = name == "q" || name == "o" ? head_dim : 0};
}

Layer StartLayer(const TrainableWeights& initial, Optimizer optimizer, int64_t head_dim) {
  Layer layer;
  const auto named = initial.Named();
  for (size_t i = 0; i < named.size(); ++i) {
    if (named[i].second->defined())
      layer.slots[i] = MakeSlot(*named[i].second, KindOf(named[i].first, head_dim), optimizer);
  }
  layer.best = Map(initial, [](const at::Tensor& x) { return x.to(at::kFloat); });
  return layer;
}

TrainableWeights Masters(const Layer& layer) {
  TrainableWeights factors;
  const auto named = factors.Named();
  for (size_t i = 0; i < named.size(); ++i) *named[i].second = layer.slots[i].master;
  return factors;
}

// One matrix that is trained: its slot, and the gradient of this step.
struct Trained {
  MatrixSlot* slot;
  const at::Tensor* gradient;
};

std::vector<Trained> AllTrained(std::vector<Layer>& layers,
                                const std::vector<TrainableWeights>& gradients) {
  std::vector<Trained> all;
  for (size_t l = 0; l < layers.size(); ++l) {
    const auto named = gradients[l].Named();
    for (size_t i = 0; i < named.size(); ++i) {
      if (named[i].second->defined()) all.push_back({&layers[l].slots[i], named[i].second});
    }
  }
  return all;
}

// Calls body(i) for each of them. Each is one thread's work, so that what it gives does not depend
// on their number.
void ForEach(const std::vector<Trained>& all, const std::function<void(size_t)>& body) {
  model::ParallelFor(std::ssize(all), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(static_cast<size_t>(i));
  });
}

// The norm of all gradients, each in units of its latent's size.
double Norm(const std::vector<Trained>& all) {
  std::vector<double> squares(all.size());
  ForEach(all, [&](size_t i) {
    const MatrixSlot& slot = *all[i].slot;
    const int64_t within = slot.kind.axis == LatentAxis::kRows ? 1 : 0;
    const at::Tensor latents = all[i].gradient->square().sum(within, /*keepdim=*/true, at::kDouble);
    squares[i] = latents.mul_(slot.scale.to(at::kDouble).square()).sum().item<double>();
  });
  return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}

// Along the gradients shortened by `factor`; the `count`-th step.
void Update(const std::vector<Trained>& all, double factor, int64_t count, double rate,
            const HealingOptions& options) {
  ForEach(all, [&](size_t i) {
    if (options.optimizer == Optimizer::kMuon) {
      Step(*all[i].slot, *all[i].gradient, factor, rate, options.muon);
    } else {
      Step(*all[i].slot, *all[i].gradient, factor, count, rate, options.adam);
    }
  });
}

}  // namespace

double SuitableRate(double divergence, int64_t steps) {
  constexpr double kShortRun = 40;         // steps
  constexpr double kFarDivergence = 0.22;  // nats
  const double rate = std::clamp(4.3e-3 * std::sqrt(divergence), 1e-4, 2e-3);
  const double length = kShortRun / static_cast<double>(steps);
  const double distance = std::sqrt(divergence / kFarDivergence);
  return std::max(1e-4, rate * std::min(1.0, std::max(length, distance)));
}

std::vector<HealingMeasurement>::const_iterator HealingState::Best() const {
  return std::min_element(measurements.begin(), measurements.end(),
                          [](const HealingMeasurement& a, const HealingMeasurement& b) {
                            return a.divergence < b.divergence;
                          });
}

bool GivesUp(const HealingState& state, int64_t steps, const HealingOptions& options) {
  const auto& measurements = state.measurements;
  const auto from = measurements.end() - std::min(options.patience, std::ssize(measurements) - 1);
  if (measurements.end() - from < options.patience) return false;
  const double limit = options.hopeless * measurements.front().divergence;
  const auto above = [&](const HealingMeasurement& m) { return m.divergence > limit; };
  if (std::all_of(from, measurements.end(), above)) return true;
  // While steps become smaller the divergence falls for long before it is at its best.
  const bool falls = measurements.back().divergence < from->divergence;
  return state.Best() < from && 2 * from->step >= steps && !falls;
}

HealingState StartHealing(const std::vector<TrainableWeights>& initial, Optimizer optimizer,
                          int64_t head_dim) {
  HealingState state;
  for (const TrainableWeights& weights : initial)
    state.layers.push_back(StartLayer(weights, optimizer, head_dim));
  return state;
}

absl::StatusOr<Healer> Healer::Create(const checkpoint::Checkpoint& checkpoint,
                                      const TrainingText& text, HealingOptions options) {
  if (text.validation.ids.empty() || text.steps() < 1 || options.evaluate_every < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("healing got ", text.steps(), " steps to train on, ",
                     text.validation.ids.size(), " ids to measure on and a measurement each ",
                     options.evaluate_every, " steps; expected at least one of each"));
  }
  LF_ASSIGN_OR_RETURN(Distiller distiller,
                      Distiller::Create(checkpoint, {.device = options.device,
                                                     .dtype = options.dtype,
                                                     .longest = text.validation.length,
                                                     .attention_loss = options.attention_loss,
                                                     .stop = options.stop}));
  return Healer(text, std::move(options), std::move(distiller),
                static_cast<size_t>(checkpoint.config().num_layers));
}

int64_t Healer::steps() const { return text_.steps(); }

// As the model computes with them.
std::vector<TrainableWeights> Healer::Computed(const HealingState& state) const {
  std::vector<TrainableWeights> factors;
  for (const Layer& layer : state.layers) {
    factors.push_back(Map(Masters(layer), [this](const at::Tensor& x) {
      return x.to(options_.device, options_.dtype);
    }));
  }
  return factors;
}

absl::Status Healer::Measure(HealingState& state) {
  if (!teacher_states_.defined()) {
    LF_ASSIGN_OR_RETURN(teacher_states_, distiller_.TeacherStates(text_.validation));
  }
  LF_ASSIGN_OR_RETURN(const Distance distance,
                      distiller_.Measure(text_.validation, teacher_states_, Computed(state)));
  state.measurements.push_back({.step = state.steps_done(),
                                .divergence = distance.divergence,
                                .perplexity = std::exp(distance.nll)});
  if (state.best_step() != state.steps_done()) return absl::OkStatus();
  for (Layer& layer : state.layers) {
    layer.best = Map(Masters(layer), [](const at::Tensor& x) { return x.clone(); });
  }
  return absl::OkStatus();
}

absl::Status Healer::Train(HealingState& state) {
  std::vector<TrainableWeights> gradients;
  LF_ASSIGN_OR_RETURN(
      const Distance distance,
      distiller_.Differentiate(text_.Step(state.steps_done()), Computed(state), gradients));
  return model::CatchTorch(
      [&]() -> absl::Status {
        const std::vector<Trained> trained = AllTrained(state.layers, gradients);
        const double norm = Norm(trained);
        if (!std::isfinite(norm)) {
          return absl::DataLossError(absl::StrCat("the norm of the gradients is ", norm));
        }
        const double peak = options_.learning_rate > 0
                                ? options_.learning_rate
                                : SuitableRate(state.measurements.front().divergence, steps());
        const double rate = LearningRate(state.steps_done(), steps(), options_.warmup_steps, peak);
        Update(trained, norm > options_.clip ? options_.clip / norm : 1.0, state.steps_done() + 1,
               rate, options_);
        state.steps.push_back({.step = state.steps_done() + 1,
                               .loss = distance.divergence,
                               .learning_rate = rate,
                               .gradient_norm = norm});
        return absl::OkStatus();
      },
      "step");
}

absl::Status Healer::Run(HealingState& state, const Observer& observer) {
  if (state.layers.size() != layers_) {
    return absl::InvalidArgumentError(absl::StrCat("healing got weights of ", state.layers.size(),
                                                   " layers, expected ", layers_));
  }
  // DataLoss means a number that is not finite: the best factors so far are the result.
  const auto keep_best = [&](const absl::Status& status) {
    if (!absl::IsDataLoss(status)) return status;
    state.ended_early = absl::StrCat("step ", state.steps_done() + 1, ": ", status.message());
    return absl::OkStatus();
  };
  while (true) {
    const int64_t done = state.steps_done();
    const bool last = done == steps();
    const bool due = last || done % options_.evaluate_every == 0;
    if (due && (state.measurements.empty() || state.measurements.back().step != done)) {
      LF_RETURN_IF_ERROR(keep_best(Measure(state)));
      if (!state.ended_early.empty()) return absl::OkStatus();
      if (observer.measurement) LF_RETURN_IF_ERROR(observer.measurement(state));
    }
    if (last) return absl::OkStatus();
    if (GivesUp(state, steps(), options_)) {
      state.ended_early = absl::StrCat("no better after step ", state.best_step());
      return absl::OkStatus();
    }
    LF_RETURN_IF_ERROR(keep_best(Train(state)));
    if (!state.ended_early.empty()) return absl::OkStatus();
    if (observer.step) LF_RETURN_IF_ERROR(observer.step(state));
  }
}

}  // namespace latentforge::finetune
