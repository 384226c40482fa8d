// Factorisation: ranks into factorize/ranks.json, rounded factors of every layer
// into factorize/layer.<l>.safetensors.
#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/convert/attempt.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/tensor_file.h"
#include "worker/export/tensor_cast.h"
#include "worker/factorize/decomposition.h"
#include "worker/model/torch_guard.h"
#include "worker/model/weights.h"

namespace latentforge::convert {
namespace {

using factorize::RankProfile;

Json RanksToJson(const RankProfile& ranks) {
  Json layers = Json::array();
  for (const factorize::LayerRanks& layer : ranks) {
    layers.push_back({{"layer", layers.size()}, {"rankK", layer.key}, {"rankV", layer.value}});
  }
  return {{"layers", std::move(layers)}};
}

absl::StatusOr<RankProfile> RanksFromJson(absl::string_view text) {
  LF_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  LF_ASSIGN_OR_RETURN(const JsonObject root, JsonObject::Create(json, "ranks.json"));
  const Json* layers = root.Find("layers");
  if (layers == nullptr || !layers->is_array()) return root.Wrong("layers", "a list");
  RankProfile ranks;
  for (const Json& entry : *layers) {
    LF_ASSIGN_OR_RETURN(const JsonObject layer, JsonObject::Create(entry, "ranks.json: layer"));
    LF_ASSIGN_OR_RETURN(const int64_t key, layer.Int("rankK", 1, INT32_MAX));
    LF_ASSIGN_OR_RETURN(const int64_t value, layer.Int("rankV", 1, INT32_MAX));
    ranks.push_back({key, value});
  }
  return ranks;
}

absl::StatusOr<RankProfile> Allocate(Attempt& attempt, const Inputs& inputs) {
  const int64_t layers = inputs.checkpoint.config().num_layers;
  if (!attempt.spec.allocation) return attempt.spec.rank_profile;
  factorize::Spectra key;
  factorize::Spectra value;
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (attempt.stopped()) return absl::CancelledError("rank allocation was stopped");
    LF_ASSIGN_OR_RETURN(const factorize::LayerStatistics statistics,
                        LoadStatistics(StatisticsPath(attempt.work, layer)));
    const auto spectrum = [&](const at::Tensor& gram) {
      return model::CatchTorch([&] { return factorize::OutputSpectrum(gram); },
                               absl::StrCat("spectrum of layer ", layer));
    };
    LF_ASSIGN_OR_RETURN(key.emplace_back(), spectrum(statistics.key.gram));
    LF_ASSIGN_OR_RETURN(value.emplace_back(), spectrum(statistics.value.gram));
  }
  const auto allocate = [&](const factorize::Spectra& spectra) {
    return factorize::AllocateRanks(*attempt.spec.allocation, attempt.spec.kv_budget, spectra);
  };
  LF_ASSIGN_OR_RETURN(const std::vector<int64_t> key_ranks, allocate(key));
  LF_ASSIGN_OR_RETURN(const std::vector<int64_t> value_ranks, allocate(value));
  RankProfile ranks;
  for (int64_t l = 0; l < layers; ++l) ranks.push_back({key_ranks[l], value_ranks[l]});
  return ranks;
}

// Ranks of an earlier attempt, or new ones, saved.
absl::StatusOr<RankProfile> ChooseRanks(Attempt& attempt, const Inputs& inputs) {
  const std::filesystem::path path = RanksPath(attempt.work);
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (text.ok()) {
    absl::StatusOr<RankProfile> saved = RanksFromJson(*text);
    if (saved.ok() && int64_t(saved->size()) == inputs.checkpoint.config().num_layers) return saved;
  }
  LF_ASSIGN_OR_RETURN(const RankProfile ranks, Allocate(attempt, inputs));
  LF_RETURN_IF_ERROR(WriteFileAtomic(path, WriteJson(RanksToJson(ranks), 2) + "\n"));
  return ranks;
}

struct ProjectionResult {
  at::Tensor down;  // undefined when dense
  at::Tensor up;
  double error = 0;
};

absl::StatusOr<ProjectionResult> FactorizeProjection(const Attempt& attempt, const Inputs& inputs,
                                                     const at::Tensor& weight,
                                                     const factorize::InputStatistics& input,
                                                     const factorize::OutputStatistics& output,
                                                     int64_t rank) {
  ProjectionResult result;
  if (rank == weight.size(0)) return result;
  LF_ASSIGN_OR_RETURN(
      const factorize::Decomposition decomposition,
      factorize::Decomposition::Compute(weight, input, output, attempt.spec.preconditioner));
  LF_ASSIGN_OR_RETURN(const factorize::Factors factors,
                      decomposition.FactorsOf(rank, factorize::Gauge::kUnitRms));
  LF_ASSIGN_OR_RETURN(result.down,
                      exporter::CastTensor(factors.down, inputs.output_dtype, "down projection"));
  LF_ASSIGN_OR_RETURN(result.up,
                      exporter::CastTensor(factors.up, inputs.output_dtype, "up projection"));
  result.error = decomposition.RelativeError(rank);
  return result;
}

absl::Status FactorizeLayer(const Attempt& attempt, const Inputs& inputs, int64_t layer,
                            const factorize::LayerRanks& ranks) {
  LF_ASSIGN_OR_RETURN(const factorize::LayerStatistics statistics,
                      LoadStatistics(StatisticsPath(attempt.work, layer)));
  const model::WeightLoader loader(inputs.checkpoint, at::kCPU, at::kDouble);
  const auto run = [&](absl::string_view name, const factorize::OutputStatistics& output,
                       int64_t rank) -> absl::StatusOr<ProjectionResult> {
    const std::string tensor =
        checkpoint::LayerTensor(layer, absl::StrCat("self_attn.", name, ".weight"));
    LF_ASSIGN_OR_RETURN(const at::Tensor weight, loader.Tensor(tensor, at::kDouble));
    return model::CatchTorch(
        [&] {
          return FactorizeProjection(attempt, inputs, weight, statistics.input, output, rank);
        },
        tensor);
  };
  LF_ASSIGN_OR_RETURN(const ProjectionResult key, run("k_proj", statistics.key, ranks.key));
  LF_ASSIGN_OR_RETURN(const ProjectionResult value, run("v_proj", statistics.value, ranks.value));
  return SaveTensors(FactorsPath(attempt.work, layer),
                     {{"errors", at::tensor({key.error, value.error}, at::kDouble)},
                      {"k_down", key.down},
                      {"k_up", key.up},
                      {"v_down", value.down},
                      {"v_up", value.up}});
}

}  // namespace

absl::StatusOr<exporter::ConvertedLayer> LoadFactors(const WorkDir& work, int64_t layer) {
  LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(FactorsPath(work, layer)));
  return exporter::ConvertedLayer{.k_down = tensors["k_down"],
                                  .v_down = tensors["v_down"],
                                  .k_up = tensors["k_up"],
                                  .v_up = tensors["v_up"]};
}

absl::StatusOr<Factorization> FactorizeLayers(Attempt& attempt, const Inputs& inputs) {
  const int64_t layers = inputs.checkpoint.config().num_layers;
  Factorization result;
  LF_ASSIGN_OR_RETURN(result.ranks, ChooseRanks(attempt, inputs));
  std::error_code error;
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (attempt.stopped()) return absl::CancelledError("factorisation was stopped");
    const std::filesystem::path path = FactorsPath(attempt.work, layer);
    if (!std::filesystem::exists(path, error)) {
      LF_RETURN_IF_ERROR(
          Annotate(WithReasonByCode(FactorizeLayer(attempt, inputs, layer, result.ranks[layer]),
                                    {{absl::StatusCode::kInternal, "NUMERICAL_FAILURE"},
                                     {absl::StatusCode::kInvalidArgument, "NUMERICAL_FAILURE"},
                                     {absl::StatusCode::kNotFound, "CHECKPOINT_CORRUPT"}}),
                   absl::StrCat("factorisation of layer ", layer)));
    }
    LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(path));
    const at::Tensor errors = tensors["errors"];
    if (!errors.defined() || errors.numel() != 2) {
      LF_RETURN_IF_ERROR(RemoveTree(path));
      return WithReason(absl::DataLossError(absl::StrCat(path.string(), " lacks its errors")),
                        "CHECKPOINT_CORRUPT");
    }
    result.error_k.push_back(errors[0].item<double>());
    result.error_v.push_back(errors[1].item<double>());
    attempt.progress.Update(double(layer + 1) / double(layers), 0,
                            absl::StrCat("layer ", layer + 1, " of ", layers));
  }
  return result;
}

}  // namespace latentforge::convert
