// Factorisation: ranks into factorize/ranks.json, rounded factors of every layer
// into factorize/layer.<l>.safetensors.
#include <ATen/ATen.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/convert/anchored_factorization.h"
#include "worker/convert/attempt.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/layer_factorizer.h"
#include "worker/convert/low_rank_files.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/phase_search.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {
namespace {

using factorize::RankProfile;

Json RanksToJson(const RankProfile& ranks) {
  Json layers = Json::array();
  for (const factorize::LayerRanks& layer : ranks) {
    layers.push_back(LayerRanksToJson(int64_t(layers.size()), layer));
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
    LF_ASSIGN_OR_RETURN(const int64_t key, layer.IntOr("rankK", 0, INT32_MAX, 0));
    LF_ASSIGN_OR_RETURN(const int64_t value, layer.IntOr("rankV", 0, INT32_MAX, 0));
    LF_ASSIGN_OR_RETURN(const int64_t joint, layer.IntOr("rankKv", 0, INT32_MAX, 0));
    ranks.push_back({key, value, joint});
  }
  return ranks;
}

// The budget was kept when they were chosen.
absl::Status CheckSaved(const Attempt& attempt, const Inputs& inputs, const RankProfile& ranks) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  return factorize::CheckProfile(ranks, config.num_layers, config.kv_width(),
                                 attempt.spec.factorization.joint, /*budget=*/1);
}

// Statistics that decompose to nothing usable are a failure of the numbers in them.
absl::Status WithNumericalReason(const absl::Status& status) {
  return WithReasonByCode(status, {{absl::StatusCode::kInternal, "NUMERICAL_FAILURE"},
                                   {absl::StatusCode::kInvalidArgument, "NUMERICAL_FAILURE"},
                                   {absl::StatusCode::kNotFound, "CHECKPOINT_CORRUPT"}});
}

// What spectra and budget do not allow.
absl::Status WithSpectraReason(const absl::Status& status) {
  return WithReasonByCode(status, {{absl::StatusCode::kFailedPrecondition, "SOURCE_CORRUPT"},
                                   {absl::StatusCode::kOutOfRange, "RANK_OUT_OF_RANGE"}});
}

template <typename T>
absl::StatusOr<T> WithAllocationReason(absl::StatusOr<T> result) {
  if (result.ok()) return result;
  return WithSpectraReason(WithNumericalReason(result.status()));
}

// Ranks of an earlier attempt, or new ones, saved.
absl::StatusOr<RankProfile> ChooseRanks(const Attempt& attempt, const Inputs& inputs,
                                        LayerFactorizer& factorizer, double budget) {
  if (!attempt.spec.factorization.allocation) return attempt.spec.factorization.rank_profile;
  const std::filesystem::path path = RanksPath(attempt.work);
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (text.ok()) {
    const absl::StatusOr<RankProfile> saved = RanksFromJson(*text);
    const absl::Status usable = saved.ok() ? CheckSaved(attempt, inputs, *saved) : saved.status();
    if (usable.ok()) return saved;
    Log(Severity::kWarning, "saved ranks are not usable and are chosen again",
        {{"file", path.string()}, {"error", std::string(usable.message())}});
  }
  LF_ASSIGN_OR_RETURN(const RankProfile ranks, WithAllocationReason(factorizer.Allocate(budget)));
  LF_RETURN_IF_ERROR(WriteFileAtomic(path, WriteJson(RanksToJson(ranks), 2) + "\n"));
  return ranks;
}

std::unique_ptr<LayerFactorizer> MakeFactorizer(const Attempt& attempt, const Inputs& inputs) {
  return attempt.spec.factorization.loss_aware ? MakeLossAwareFactorizer(attempt, inputs)
                                               : MakePreconditionedFactorizer(attempt, inputs);
}

absl::Status FactorizeLayer(const Attempt& attempt, LayerFactorizer& factorizer, int64_t layer,
                            const factorize::LayerRanks& ranks) {
  LF_ASSIGN_OR_RETURN(const NamedTensors tensors, factorizer.Factorize(layer, ranks));
  return SaveTensors(FactorsPath(attempt.work, layer), tensors, Durability::kProcess);
}

}  // namespace

absl::StatusOr<exporter::ConvertedLayer> LoadFactors(const Attempt& attempt, int64_t layer) {
  // A layer that stays dense may have nothing to heal.
  std::error_code error;
  const std::filesystem::path healed = HealedFactorsPath(attempt.work, layer);
  const bool use_healed = attempt.spec.healing && std::filesystem::exists(healed, error);
  return LoadLayer(use_healed ? healed : FactorsPath(attempt.work, layer));
}

absl::StatusOr<exporter::ConvertedLayer> LoadLayer(const std::filesystem::path& path) {
  LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(path));
  return exporter::ConvertedLayer{.k_down = tensors["k_down"],
                                  .v_down = tensors["v_down"],
                                  .kv_down = tensors["kv_down"],
                                  .k_up = tensors["k_up"],
                                  .v_up = tensors["v_up"],
                                  .q = tensors["q"],
                                  .o = tensors["o"],
                                  .low_rank = LowRankLayerOf(tensors)};
}

absl::Status FactorizeAll(Attempt& attempt, LayerFactorizer& factorizer, const RankProfile& ranks,
                          const PhasePart& part) {
  const auto layers = int64_t(ranks.size());
  std::error_code error;
  if (!attempt.work.state().unsynced_factors) {
    // Syncing each layer's takes a third of the time that making them does.
    attempt.work.state().unsynced_factors = true;
    LF_RETURN_IF_ERROR(attempt.work.SaveState());
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (attempt.stopped()) return absl::CancelledError("factorisation was stopped");
    if (std::filesystem::exists(FactorsPath(attempt.work, layer), error)) continue;
    LF_RETURN_IF_ERROR(Annotate(
        WithNumericalReason(FactorizeLayer(attempt, factorizer, layer, ranks[size_t(layer)])),
        absl::StrCat("factorisation of layer ", layer)));
    attempt.progress.Update(part.At(double(layer + 1) / double(layers)), 0,
                            absl::StrCat("layer ", layer + 1, " of ", layers));
  }
  return absl::OkStatus();
}

absl::StatusOr<Factorization> FactorizeLayers(Attempt& attempt, const Inputs& inputs) {
  if (attempt.spec.low_rank) return CompressLayers(attempt, inputs);
  const int64_t layers = inputs.checkpoint.config().num_layers;
  Factorization result;
  const std::unique_ptr<LayerFactorizer> factorizer = MakeFactorizer(attempt, inputs);
  double budget = attempt.spec.kv_budget;
  if (attempt.spec.max_perplexity_ratio > 0) {
    absl::StatusOr<FoundBudget> found = SearchBudget(attempt, inputs, *factorizer);
    if (!found.ok()) return WithSpectraReason(found.status());
    budget = found->kv_budget;
    result.measured = std::move(found->measured);
  }
  LF_ASSIGN_OR_RETURN(result.ranks, ChooseRanks(attempt, inputs, *factorizer, budget));
  LF_ASSIGN_OR_RETURN(result.predicted_loss,
                      WithAllocationReason(factorizer->PredictedLoss(result.ranks)));
  LF_ASSIGN_OR_RETURN(result.curve, WithAllocationReason(factorizer->Curve()));
  if (attempt.spec.factorization.anchored) {
    LF_ASSIGN_OR_RETURN(result.tokens,
                        FactorizeAnchored(attempt, inputs, *factorizer, result.ranks));
  } else {
    const bool searched = attempt.spec.max_perplexity_ratio > 0;
    LF_RETURN_IF_ERROR(FactorizeAll(attempt, *factorizer, result.ranks,
                                    searched ? PhasePart{kSearchShare, 1} : PhasePart{}));
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::filesystem::path path = FactorsPath(attempt.work, layer);
    LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(path));
    const at::Tensor errors = tensors["errors"];
    if (!errors.defined() || errors.numel() != 2) {
      LF_RETURN_IF_ERROR(RemoveTree(path));
      return WithReason(absl::DataLossError(absl::StrCat(path.string(), " lacks its errors")),
                        "CHECKPOINT_CORRUPT");
    }
    result.error_k.push_back(errors[0].item<double>());
    result.error_v.push_back(errors[1].item<double>());
  }
  return result;
}

}  // namespace latentforge::convert
