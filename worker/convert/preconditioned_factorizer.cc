#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/convert/layer_factorizer.h"
#include "worker/convert/phase_files.h"
#include "worker/export/tensor_cast.h"
#include "worker/factorize/decomposition.h"
#include "worker/model/torch_guard.h"
#include "worker/model/weights.h"

namespace latentforge::convert {
namespace {

using factorize::LayerRanks;
using factorize::RankProfile;

struct ProjectionResult {
  at::Tensor down;  // undefined when dense
  at::Tensor up;
  double error = 0;
};

class PreconditionedFactorizer : public LayerFactorizer {
 public:
  PreconditionedFactorizer(const Attempt& attempt, const Inputs& inputs)
      : attempt_(attempt), inputs_(inputs) {}

  absl::StatusOr<RankProfile> Allocate(double budget) override {
    const int64_t layers = inputs_.checkpoint.config().num_layers;
    factorize::Spectra key;
    factorize::Spectra value;
    for (int64_t layer = 0; layer < layers; ++layer) {
      if (attempt_.stopped()) return absl::CancelledError("rank allocation was stopped");
      LF_ASSIGN_OR_RETURN(const factorize::LayerStatistics statistics,
                          LoadStatistics(StatisticsPath(attempt_.work, layer)));
      const auto spectrum = [&](const at::Tensor& gram) -> absl::StatusOr<std::vector<double>> {
        absl::StatusOr<std::vector<double>> values =
            model::CatchTorch([&] { return factorize::OutputSpectrum(gram); }, "LibTorch");
        if (values.ok()) return values;
        return Annotate(values.status(), absl::StrCat("spectrum of layer ", layer));
      };
      LF_ASSIGN_OR_RETURN(key.emplace_back(), spectrum(statistics.key.gram));
      LF_ASSIGN_OR_RETURN(value.emplace_back(), spectrum(statistics.value.gram));
    }
    const FactorizationSpec& spec = attempt_.spec.factorization;
    LF_ASSIGN_OR_RETURN(const std::vector<int64_t> key_ranks,
                        AllocateRanks(*spec.allocation, budget, key, spec.rank_multiple));
    LF_ASSIGN_OR_RETURN(const std::vector<int64_t> value_ranks,
                        AllocateRanks(*spec.allocation, budget, value, spec.rank_multiple));
    RankProfile ranks;
    for (int64_t l = 0; l < layers; ++l) {
      ranks.push_back({.key = key_ranks[l], .value = value_ranks[l]});
    }
    return ranks;
  }

  absl::StatusOr<NamedTensors> Factorize(int64_t layer, const LayerRanks& ranks) override {
    LF_ASSIGN_OR_RETURN(const factorize::LayerStatistics statistics,
                        LoadStatistics(StatisticsPath(attempt_.work, layer)));
    const auto run = [&](absl::string_view name, const factorize::OutputStatistics& output,
                         int64_t rank) -> absl::StatusOr<ProjectionResult> {
      const model::WeightLoader loader(inputs_.checkpoint, at::kCPU, at::kDouble);
      const std::string tensor =
          checkpoint::LayerTensor(layer, absl::StrCat("self_attn.", name, ".weight"));
      LF_ASSIGN_OR_RETURN(const at::Tensor weight, loader.Tensor(tensor, at::kDouble));
      return model::CatchTorch([&] { return Project(weight, statistics.input, output, rank); },
                               tensor);
    };
    LF_ASSIGN_OR_RETURN(const ProjectionResult key, run("k_proj", statistics.key, ranks.key));
    LF_ASSIGN_OR_RETURN(const ProjectionResult value, run("v_proj", statistics.value, ranks.value));
    return NamedTensors{{"errors", at::tensor({key.error, value.error}, at::kDouble)},
                        {"k_down", key.down},
                        {"k_up", key.up},
                        {"v_down", value.down},
                        {"v_up", value.up}};
  }

  absl::StatusOr<std::vector<std::pair<int64_t, double>>> Curve() override {
    return std::vector<std::pair<int64_t, double>>();
  }
  absl::StatusOr<double> PredictedLoss(const RankProfile&) override { return -1.0; }

 private:
  absl::StatusOr<ProjectionResult> Project(const at::Tensor& weight,
                                           const factorize::InputStatistics& input,
                                           const factorize::OutputStatistics& output,
                                           int64_t rank) const {
    ProjectionResult result;
    if (rank == weight.size(0)) return result;
    LF_ASSIGN_OR_RETURN(const factorize::Decomposition decomposition,
                        factorize::Decomposition::Compute(
                            weight, input, output, attempt_.spec.factorization.preconditioner));
    LF_ASSIGN_OR_RETURN(const factorize::Factors factors,
                        decomposition.FactorsOf(rank, factorize::Gauge::kUnitRms));
    LF_ASSIGN_OR_RETURN(
        result.down, exporter::CastTensor(factors.down, inputs_.output_dtype, "down projection"));
    LF_ASSIGN_OR_RETURN(result.up,
                        exporter::CastTensor(factors.up, inputs_.output_dtype, "up projection"));
    result.error = decomposition.RelativeError(rank);
    return result;
  }

  const Attempt& attempt_;
  const Inputs& inputs_;
};

}  // namespace

std::unique_ptr<LayerFactorizer> MakePreconditionedFactorizer(const Attempt& attempt,
                                                              const Inputs& inputs) {
  return std::make_unique<PreconditionedFactorizer>(attempt, inputs);
}

}  // namespace latentforge::convert
