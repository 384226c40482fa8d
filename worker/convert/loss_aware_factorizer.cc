#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/convert/layer_factorizer.h"
#include "worker/convert/phase_files.h"
#include "worker/export/tensor_cast.h"
#include "worker/factorize/anchored_weight.h"
#include "worker/factorize/global_ranks.h"
#include "worker/factorize/loss_decomposition.h"
#include "worker/model/torch_guard.h"
#include "worker/model/weights.h"

namespace latentforge::convert {
namespace {

using factorize::LatentPart;
using factorize::LayerRanks;
using factorize::LossDecomposition;
using factorize::RankAllocation;
using factorize::RankProfile;

// Budgets of the predicted curve.
constexpr int64_t kCurvePoints = 33;

// Latents are numbered by layer; with separate ones K comes before V.
class LossAwareFactorizer : public LayerFactorizer {
 public:
  LossAwareFactorizer(const Attempt& attempt, const Inputs& inputs)
      : attempt_(attempt),
        inputs_(inputs),
        spec_(attempt.spec.factorization),
        layers_(inputs.checkpoint.config().num_layers),
        width_(inputs.checkpoint.config().kv_width()) {}

  absl::StatusOr<RankProfile> Allocate(double budget) override {
    LF_RETURN_IF_ERROR(LoadSpectra());
    LF_ASSIGN_OR_RETURN(const std::vector<int64_t> ranks, Ranks(budget));
    RankProfile profile;
    for (int64_t l = 0; l < layers_; ++l) {
      profile.push_back(spec_.joint ? LayerRanks{.joint = ranks[l]}
                                    : LayerRanks{.key = ranks[2 * l], .value = ranks[2 * l + 1]});
    }
    return profile;
  }

  absl::StatusOr<NamedTensors> Factorize(int64_t layer, const LayerRanks& ranks) override {
    LF_ASSIGN_OR_RETURN(const factorize::LossStatistics statistics,
                        LoadLossStatistics(LossStatisticsPath(attempt_.work, layer), 2 * width_));
    LF_ASSIGN_OR_RETURN(const at::Tensor weight, Weight(layer));
    return model::CatchTorch([&] { return Factorize(weight, statistics, ranks); },
                             absl::StrCat("layer ", layer));
  }

  absl::StatusOr<NamedTensors> FactorizeAnchored(int64_t layer, const LayerRanks& ranks,
                                                 const factorize::AnchorMoments& moments) override {
    LF_ASSIGN_OR_RETURN(const factorize::LossStatistics statistics,
                        LoadLossStatistics(LossStatisticsPath(attempt_.work, layer), 2 * width_));
    LF_ASSIGN_OR_RETURN(const at::Tensor weight, Weight(layer));
    return model::CatchTorch(
        [&]() -> absl::StatusOr<NamedTensors> {
          LF_ASSIGN_OR_RETURN(const at::Tensor anchored,
                              factorize::AnchoredWeight(
                                  weight, moments, {.sink_weight = spec_.loss_metric.sink_weight}));
          return Factorize(anchored, factorize::AnchoredStatistics(anchored, moments, statistics),
                           ranks);
        },
        absl::StrCat("layer ", layer));
  }

  absl::StatusOr<std::vector<std::pair<int64_t, double>>> Curve() override {
    LF_RETURN_IF_ERROR(LoadSpectra());
    return factorize::LossCurve(spectra_, {.multiple = spec_.rank_multiple}, kCurvePoints);
  }

  absl::StatusOr<double> PredictedLoss(const RankProfile& profile) override {
    LF_RETURN_IF_ERROR(LoadSpectra());
    std::vector<int64_t> ranks;
    for (const LayerRanks& layer : profile) {
      if (spec_.joint) {
        ranks.push_back(layer.joint);
      } else {
        ranks.insert(ranks.end(), {layer.key, layer.value});
      }
    }
    return factorize::PredictedLoss(spectra_, ranks);
  }

 private:
  absl::StatusOr<std::vector<int64_t>> Ranks(double budget) const {
    switch (*spec_.allocation) {
      case RankAllocation::kGlobal:
        return factorize::AllocateGlobally(factorize::ValuesWithin(budget, 2 * layers_ * width_),
                                           spectra_, {.multiple = spec_.rank_multiple});
      case RankAllocation::kUniform:
        return AllocateRanks(RankAllocation::kUniform, budget, spectra_, spec_.rank_multiple);
      case RankAllocation::kCare:
      case RankAllocation::kCareCode:
        break;
    }
    return AllocateByKind(budget);
  }

  // CARE divides the budgets of K and of V each; here by the spectra of the Fisher metric.
  absl::StatusOr<std::vector<int64_t>> AllocateByKind(double budget) const {
    factorize::Spectra halves[2];
    for (size_t i = 0; i < spectra_.size(); ++i) halves[i % 2].push_back(spectra_[i]);
    std::vector<int64_t> ranks(spectra_.size());
    for (size_t half = 0; half < 2; ++half) {
      LF_ASSIGN_OR_RETURN(const std::vector<int64_t> part,
                          AllocateRanks(*spec_.allocation, budget, halves[half]));
      for (size_t l = 0; l < part.size(); ++l) ranks[2 * l + half] = part[l];
    }
    return ranks;
  }

  // Once; of every latent.
  absl::Status LoadSpectra() {
    if (!spectra_.empty()) return absl::OkStatus();
    factorize::Spectra spectra;
    for (int64_t layer = 0; layer < layers_; ++layer) {
      if (attempt_.stopped()) return absl::CancelledError("rank allocation was stopped");
      LF_ASSIGN_OR_RETURN(const factorize::LossStatistics statistics,
                          LoadLossStatistics(LossStatisticsPath(attempt_.work, layer), 2 * width_));
      for (const LatentPart part : Parts()) {
        LF_ASSIGN_OR_RETURN(std::vector<double> spectrum, Spectrum(layer, statistics, part));
        spectra.push_back(std::move(spectrum));
      }
    }
    spectra_ = std::move(spectra);
    return absl::OkStatus();
  }

  // Errors of LibTorch and our own name the layer.
  absl::StatusOr<std::vector<double>> Spectrum(int64_t layer,
                                               const factorize::LossStatistics& statistics,
                                               LatentPart part) const {
    absl::StatusOr<std::vector<double>> spectrum = model::CatchTorch(
        [&] { return factorize::LossSpectrum(statistics, part, spec_.loss_metric); }, "LibTorch");
    if (spectrum.ok()) return spectrum;
    return Annotate(spectrum.status(), absl::StrCat("spectrum of layer ", layer));
  }

  std::vector<LatentPart> Parts() const {
    if (spec_.joint) return {LatentPart::kJoint};
    return {LatentPart::kKey, LatentPart::kValue};
  }

  // [2m, D] fp64: the rows of W_K, then of W_V.
  absl::StatusOr<at::Tensor> Weight(int64_t layer) const {
    const model::WeightLoader loader(inputs_.checkpoint, at::kCPU, at::kDouble);
    const auto load = [&](absl::string_view name) {
      return loader.Tensor(checkpoint::LayerTensor(layer, name), at::kDouble);
    };
    LF_ASSIGN_OR_RETURN(const at::Tensor key, load("self_attn.k_proj.weight"));
    LF_ASSIGN_OR_RETURN(const at::Tensor value, load("self_attn.v_proj.weight"));
    return model::CatchTorch([&] { return at::cat({key, value}); }, "weights");
  }

  absl::StatusOr<LossDecomposition> Decompose(const at::Tensor& weight,
                                              const factorize::LossStatistics& statistics,
                                              LatentPart part) const {
    return LossDecomposition::Compute(weight, statistics, part, spec_.loss_metric);
  }

  absl::StatusOr<NamedTensors> Factorize(const at::Tensor& weight,
                                         const factorize::LossStatistics& statistics,
                                         const LayerRanks& ranks) const {
    return spec_.joint ? FactorizeJoint(weight, statistics, ranks.joint)
                       : FactorizeSeparate(weight, statistics, ranks);
  }

  absl::StatusOr<NamedTensors> FactorizeJoint(const at::Tensor& weight,
                                              const factorize::LossStatistics& statistics,
                                              int64_t rank) const {
    if (rank == 2 * width_) return NamedTensors{{"errors", at::zeros({2}, at::kDouble)}};
    LF_ASSIGN_OR_RETURN(const LossDecomposition decomposition,
                        Decompose(weight, statistics, LatentPart::kJoint));
    LF_ASSIGN_OR_RETURN(const factorize::Factors factors,
                        decomposition.FactorsOf(rank, factorize::Gauge::kUnitRms));
    LF_ASSIGN_OR_RETURN(const at::Tensor down, Cast(factors.down));
    LF_ASSIGN_OR_RETURN(const at::Tensor up, Cast(factors.up));
    return NamedTensors{{"errors", at::tensor({decomposition.RelativeKeyError(rank),
                                               decomposition.RelativeValueError(rank)},
                                              at::kDouble)},
                        {"kv_down", down},
                        {"k_up", up.narrow(0, 0, width_).contiguous()},
                        {"v_up", up.narrow(0, width_, width_).contiguous()}};
  }

  absl::StatusOr<NamedTensors> FactorizeSeparate(const at::Tensor& weight,
                                                 const factorize::LossStatistics& statistics,
                                                 const LayerRanks& ranks) const {
    NamedTensors tensors;
    std::vector<double> errors;
    for (const LatentPart part : {LatentPart::kKey, LatentPart::kValue}) {
      const bool key = part == LatentPart::kKey;
      const int64_t rank = key ? ranks.key : ranks.value;
      errors.push_back(0);
      if (rank == width_) continue;
      LF_ASSIGN_OR_RETURN(const LossDecomposition decomposition,
                          Decompose(weight, statistics, part));
      LF_ASSIGN_OR_RETURN(const factorize::Factors factors,
                          decomposition.FactorsOf(rank, factorize::Gauge::kUnitRms));
      LF_ASSIGN_OR_RETURN(const at::Tensor down, Cast(factors.down));
      LF_ASSIGN_OR_RETURN(const at::Tensor up, Cast(factors.up));
      tensors.emplace_back(key ? "k_down" : "v_down", down);
      tensors.emplace_back(key ? "k_up" : "v_up", up);
      errors.back() =
          key ? decomposition.RelativeKeyError(rank) : decomposition.RelativeValueError(rank);
    }
    tensors.emplace_back("errors", at::tensor(errors, at::kDouble));
    return tensors;
  }

  absl::StatusOr<at::Tensor> Cast(const at::Tensor& factor) const {
    return exporter::CastTensor(factor, inputs_.output_dtype, "factor");
  }

  const Attempt& attempt_;
  const Inputs& inputs_;
  const FactorizationSpec& spec_;
  const int64_t layers_;
  const int64_t width_;  // m
  factorize::Spectra spectra_;
};

}  // namespace

std::unique_ptr<LayerFactorizer> MakeLossAwareFactorizer(const Attempt& attempt,
                                                         const Inputs& inputs) {
  return std::make_unique<LossAwareFactorizer>(attempt, inputs);
}

}  // namespace latentforge::convert
