#include "worker/convert/healing_files.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {
namespace {

using finetune::HealingMeasurement;
using finetune::HealingState;
using finetune::HealingStep;

constexpr int64_t kStepColumns = 3;
constexpr int64_t kMeasurementColumns = 3;

// f(name, tensor) for every matrix of a state, which may be const.
template <typename State, typename F>
void EachMatrix(State& state, const F& f) {
  for (size_t l = 0; l < state.layers.size(); ++l) {
    auto& layer = state.layers[l];
    const auto best = layer.best.Named();
    for (size_t i = 0; i < best.size(); ++i) {
      if (!best[i].second->defined()) continue;
      const std::string name = absl::StrCat(l, ".", best[i].first, ".");
      auto& slot = layer.slots[i];
      f(name + "master", slot.master);
      f(name + "first", slot.first);
      if (slot.second.defined()) f(name + "second", slot.second);
      f(name + "best", *best[i].second);
    }
  }
}

// Rows of numbers as one tensor; at least one row, as an empty tensor has no place in a file.
at::Tensor Table(const std::vector<std::vector<double>>& rows, int64_t columns) {
  at::Tensor table = at::zeros({static_cast<int64_t>(rows.size()) + 1, columns}, at::kDouble);
  double* data = table.mutable_data_ptr<double>();
  for (const std::vector<double>& row : rows) data = std::copy(row.begin(), row.end(), data);
  return table;
}

at::Tensor Steps(const HealingState& state) {
  std::vector<std::vector<double>> rows;
  for (const HealingStep& step : state.steps) {
    rows.push_back({step.loss, step.learning_rate, step.gradient_norm});
  }
  return Table(rows, kStepColumns);
}

at::Tensor Measurements(const HealingState& state) {
  std::vector<std::vector<double>> rows;
  for (const HealingMeasurement& measurement : state.measurements) {
    rows.push_back(
        {static_cast<double>(measurement.step), measurement.divergence, measurement.perplexity});
  }
  return Table(rows, kMeasurementColumns);
}

bool IsTable(const at::Tensor& table, int64_t columns) {
  return table.defined() && table.scalar_type() == at::kDouble && table.dim() == 2 &&
         table.size(0) >= 1 && table.size(1) == columns && at::isfinite(table).all().item<bool>();
}

bool Take(TensorMap& tensors, HealingState& state) {
  const at::Tensor steps = tensors["steps"];
  const at::Tensor measurements = tensors["measurements"];
  if (!IsTable(steps, kStepColumns) || !IsTable(measurements, kMeasurementColumns)) return false;
  bool fits = true;
  EachMatrix(state, [&](const std::string& name, at::Tensor& into) {
    const at::Tensor found = tensors[name];
    fits = fits && found.defined() && found.scalar_type() == at::kFloat &&
           found.sizes() == into.sizes();
    if (fits) into = found;
  });
  if (!fits) return false;
  const double* data = steps.const_data_ptr<double>();
  for (int64_t i = 0; i + 1 < steps.size(0); ++i, data += kStepColumns) {
    state.steps.push_back(
        {.step = i + 1, .loss = data[0], .learning_rate = data[1], .gradient_norm = data[2]});
  }
  data = measurements.const_data_ptr<double>();
  for (int64_t i = 0; i + 1 < measurements.size(0); ++i, data += kMeasurementColumns) {
    state.measurements.push_back(
        {.step = static_cast<int64_t>(data[0]), .divergence = data[1], .perplexity = data[2]});
  }
  return true;
}

}  // namespace

absl::Status SaveHealingState(const std::filesystem::path& path, const HealingState& state) {
  NamedTensors tensors = {{"steps", Steps(state)}, {"measurements", Measurements(state)}};
  EachMatrix(state, [&](const std::string& name, const at::Tensor& matrix) {
    tensors.emplace_back(name, matrix);
  });
  return SaveTensors(path, tensors);
}

absl::StatusOr<bool> LoadHealingState(const std::filesystem::path& path, HealingState& state) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return false;
  LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(path));
  HealingState loaded = state;
  if (Take(tensors, loaded)) {
    state = std::move(loaded);
    return true;
  }
  LF_RETURN_IF_ERROR(RemoveTree(path));
  return absl::DataLossError(
      absl::StrCat(path.string(), " does not hold the state of this healing; it was removed"));
}

finetune::TrainableWeights ToTrainableWeights(const exporter::ConvertedLayer& layer) {
  return {.kv_down = layer.kv_down,
          .k_down = layer.k_down,
          .v_down = layer.v_down,
          .k_up = layer.k_up,
          .v_up = layer.v_up,
          .q = layer.q,
          .o = layer.o};
}

}  // namespace latentforge::convert
