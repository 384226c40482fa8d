// The method low_rank: ranks into factorize/ranks.json, low-rank maps of every layer into
// factorize/layer.<l>.safetensors.
#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/convert/attempt.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/layer_conversion.h"
#include "worker/convert/linear_moments_file.h"
#include "worker/convert/linear_pass.h"
#include "worker/convert/low_rank_files.h"
#include "worker/convert/low_rank_layer.h"
#include "worker/convert/low_rank_ranks.h"
#include "worker/convert/phase_files.h"
#include "worker/model/torch_guard.h"

namespace latentforge::convert {
namespace {

using calibrate::LinearMoments;
using checkpoint::LinearRanks;

absl::Status WithCompressionReason(const absl::Status& status) {
  return WithReasonByCode(status, {{absl::StatusCode::kInternal, "NUMERICAL_FAILURE"},
                                   {absl::StatusCode::kInvalidArgument, "NUMERICAL_FAILURE"},
                                   {absl::StatusCode::kNotFound, "CHECKPOINT_CORRUPT"}});
}

// Of the phase, where global ranks come before the maps: every map is decomposed for either.
constexpr double kRanksShare = 0.5;

// What layers of the original become. Borrows everything.
class Compressor {
 public:
  Compressor(const Attempt& attempt, const Inputs& inputs)
      : attempt_(attempt),
        inputs_(inputs),
        config_(inputs.checkpoint.config()),
        spec_(*attempt.spec.low_rank) {}

  // Of every layer, by the allocation asked for. Those of an earlier attempt are used again.
  absl::StatusOr<std::vector<LinearRanks>> ChooseRanks() const {
    if (!spec_.global_ranks) {
      LF_ASSIGN_OR_RETURN(const LinearRanks ranks, UniformRanks(config_, spec_));
      return std::vector<LinearRanks>(size_t(config_.num_layers), ranks);
    }
    const std::filesystem::path path = RanksPath(attempt_.work);
    if (const absl::StatusOr<std::string> text = ReadFile(path); text.ok()) {
      absl::StatusOr<std::vector<LinearRanks>> saved = LinearRanksFromJson(config_, *text);
      if (saved.ok()) return saved;
    }
    std::vector<std::array<std::vector<double>, kLinearMaps>> spectra;
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      if (attempt_.stopped()) return absl::CancelledError("rank allocation was stopped");
      LF_ASSIGN_OR_RETURN(spectra.emplace_back(), Spectra(layer));
      attempt_.progress.Update(
          kRanksShare * double(layer + 1) / double(config_.num_layers), 0,
          absl::StrCat("spectra of layer ", layer + 1, " of ", config_.num_layers));
    }
    LF_ASSIGN_OR_RETURN(std::vector<LinearRanks> ranks, GlobalRanks(config_, spec_, spectra));
    LF_RETURN_IF_ERROR(
        WriteFileAtomic(path, WriteJson(LinearRanksToJson(config_, ranks), 2) + "\n"));
    return ranks;
  }

  absl::Status Compress(int64_t layer, const LinearMoments& moments, LinearRanks ranks) const {
    const auto compress = [&](LayerProblem problem) -> absl::StatusOr<bool> {
      std::optional<low_rank::MlpTokens> rows;
      if (spec_.mlp != MlpCompression::kLocal) {
        LF_ASSIGN_OR_RETURN(rows, OpenMlpRows(layer));
        problem.mlp_tokens = &*rows;
      }
      problem.ranks = ranks;
      LF_ASSIGN_OR_RETURN(const CompressedLayer compressed, CompressLayer(problem, spec_));
      LF_RETURN_IF_ERROR(
          SaveLowRankLayer(FactorsPath(attempt_.work, layer), compressed, inputs_.output_dtype));
      return true;
    };
    LF_RETURN_IF_ERROR(WithProblem<bool>(layer, moments, compress).status());
    return RemoveTree(MlpRowsPath(attempt_.work, layer));
  }

 private:
  using MapsSpectra = std::array<std::vector<double>, kLinearMaps>;

  absl::StatusOr<MapsSpectra> Spectra(int64_t layer) const {
    LF_ASSIGN_OR_RETURN(const LinearMoments moments,
                        LoadLinearMoments(LinearMomentsPath(attempt_.work, layer), config_,
                                          NeedsOf(spec_, config_)));
    return WithProblem<MapsSpectra>(
        layer, moments, [&](const LayerProblem& problem) { return MapSpectra(problem, spec_); });
  }

  // The inputs of a layer's MLP that calibration left, a sequence a chunk.
  absl::StatusOr<low_rank::MlpTokens> OpenMlpRows(int64_t layer) const {
    const calibrate::HiddenShape shape = MlpRowsShape(attempt_, inputs_);
    LF_ASSIGN_OR_RETURN(calibrate::HiddenFile opened,
                        calibrate::HiddenFile::Open(MlpRowsPath(attempt_.work, layer), shape));
    const auto file = std::make_shared<calibrate::HiddenFile>(std::move(opened));
    return low_rank::MlpTokens{
        .chunks = shape.sequences,
        .read = [file, shape](int64_t chunk) -> absl::StatusOr<low_rank::MlpRows> {
          at::Tensor rows = at::empty({1, shape.length, shape.width}, shape.dtype);
          LF_RETURN_IF_ERROR(file->Read(chunk, rows));
          return low_rank::MlpRows{.original = rows[0]};
        }};
  }

  template <typename T, typename F>
  absl::StatusOr<T> WithProblem(int64_t layer, const LinearMoments& moments, const F& f) const {
    absl::StatusOr<T> result = model::CatchTorch(
        [&]() -> absl::StatusOr<T> {
          LF_ASSIGN_OR_RETURN(const LayerMaps maps, LoadMaps(inputs_.checkpoint, layer));
          std::optional<calibrate::LinearFisher> fisher;
          if (spec_.loss_aware) {
            LF_ASSIGN_OR_RETURN(fisher,
                                LoadLinearFisher(LinearFisherPath(attempt_.work, layer), config_));
          }
          return f({.config = config_,
                    .maps = maps,
                    .moments = moments,
                    .fisher = fisher ? &*fisher : nullptr,
                    .sequence_length = inputs_.sequences.length});
        },
        "LibTorch");
    if (result.ok()) return result;
    return Annotate(WithCompressionReason(result.status()),
                    absl::StrCat("compression of layer ", layer));
  }

  const Attempt& attempt_;
  const Inputs& inputs_;
  const checkpoint::ModelConfig& config_;
  const LowRankSpec& spec_;
};

bool IsCompressed(const Attempt& attempt, int64_t layer) {
  std::error_code error;
  return std::filesystem::exists(FactorsPath(attempt.work, layer), error);
}

// From the statistics that calibration left.
absl::Status CompressFromMoments(Attempt& attempt, const Inputs& inputs,
                                 const Compressor& compressor,
                                 const std::vector<LinearRanks>& ranks) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  const PhasePart part{attempt.spec.low_rank->global_ranks ? kRanksShare : 0, 1};
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (attempt.stopped()) return absl::CancelledError("compression was stopped");
    if (IsCompressed(attempt, layer)) {
      // A kill may have come before they were removed.
      LF_RETURN_IF_ERROR(RemoveTree(MlpRowsPath(attempt.work, layer)));
      continue;
    }
    LF_ASSIGN_OR_RETURN(const LinearMoments moments,
                        LoadLinearMoments(LinearMomentsPath(attempt.work, layer), config,
                                          NeedsOf(*attempt.spec.low_rank, config)));
    LF_RETURN_IF_ERROR(compressor.Compress(layer, moments, ranks[size_t(layer)]));
    attempt.progress.Update(part.At(double(layer + 1) / double(config.num_layers)), 0,
                            absl::StrCat("layer ", layer + 1, " of ", config.num_layers));
  }
  return absl::OkStatus();
}

// Each layer for what the compressed ones before it give. Returns tokens, weighted by the share of
// the pass made here.
absl::StatusOr<int64_t> CompressInOrder(Attempt& attempt, const Inputs& inputs,
                                        const Compressor& compressor,
                                        const std::vector<LinearRanks>& ranks) {
  const int64_t layers = inputs.checkpoint.config().num_layers;
  int64_t finished = 0;
  while (finished < layers && IsCompressed(attempt, finished)) ++finished;
  if (finished == layers) return 0;
  const LowRankSpec& spec = *attempt.spec.low_rank;
  LayerProgress progress(attempt, inputs,
                         {.sweeps = 2, .part = {spec.global_ranks ? kRanksShare : 0, 1}});
  calibrate::LayerPassOptions options = LinearPassOptions(
      attempt, inputs, {.finished = finished, .mlp_rows = spec.mlp != MlpCompression::kLocal},
      progress, [&](int64_t layer, const LinearMoments& moments) {
        return compressor.Compress(layer, moments, ranks[size_t(layer)]);
      });
  // States of compressed layers: those of the original, which calibration may have left, are
  // others.
  options.scratch = attempt.work.factorize();
  options.change = [&](int64_t layer, model::LayerWeights& weights) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const exporter::ConvertedLayer factors,
                        LoadLayer(FactorsPath(attempt.work, layer)));
    return ConvertLayer(inputs, factors, weights);
  };
  LF_RETURN_IF_ERROR(
      WithCalibrationReason(calibrate::RunLayerPass(inputs.checkpoint, inputs.sequences, options)));
  return progress.WorkDone();
}

// What later phases read of the files.
absl::Status Describe(const Attempt& attempt, const checkpoint::ModelConfig& config,
                      Factorization& result) {
  const int64_t width = config.kv_width();
  for (size_t layer = 0; layer < result.linear_ranks.size(); ++layer) {
    LF_ASSIGN_OR_RETURN(const auto errors,
                        LoadLowRankErrors(FactorsPath(attempt.work, int64_t(layer))));
    const LinearRanks& ranks = result.linear_ranks[layer];
    result.linear_errors.push_back(errors);
    result.ranks.push_back(
        {.key = ranks.k > 0 ? ranks.k : width, .value = ranks.v > 0 ? ranks.v : width});
    result.error_k.push_back(errors[kK]);
    result.error_v.push_back(errors[kV]);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Factorization> CompressLayers(Attempt& attempt, const Inputs& inputs) {
  const Compressor compressor(attempt, inputs);
  Factorization result;
  LF_ASSIGN_OR_RETURN(result.linear_ranks, compressor.ChooseRanks());
  if (attempt.spec.low_rank->compressed_activations) {
    LF_ASSIGN_OR_RETURN(result.tokens,
                        CompressInOrder(attempt, inputs, compressor, result.linear_ranks));
  } else {
    LF_RETURN_IF_ERROR(CompressFromMoments(attempt, inputs, compressor, result.linear_ranks));
  }
  LF_RETURN_IF_ERROR(Describe(attempt, inputs.checkpoint.config(), result));
  return result;
}

}  // namespace latentforge::convert
