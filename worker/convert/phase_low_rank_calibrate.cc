// Calibration of the method low_rank: moments of what every linear map is fed into
// calibrate/linear.<l>.safetensors, the Fisher information of what it gives into
// calibrate/fisher.<l>.safetensors.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "checkpoint/gradient_sequences.h"
#include "worker/calibrate/gradient_pass.h"
#include "worker/convert/attempt.h"
#include "worker/convert/kept_folder.h"
#include "worker/convert/layer_file_store.h"
#include "worker/convert/linear_moments_file.h"
#include "worker/convert/linear_pass.h"
#include "worker/convert/low_rank_layer.h"
#include "worker/convert/phase_files.h"
#include "worker/model/torch_guard.h"

namespace latentforge::convert {
namespace {

using calibrate::TokenSequences;

// Of the way back, in units of a forward pass over the same sequences.
constexpr double kGradientCost = 4;

class FisherSums : public calibrate::GradientSums {
 public:
  FisherSums(std::filesystem::path path, calibrate::LinearFisherSum sum)
      : path_(std::move(path)), sum_(std::move(sum)) {}

  absl::Status Add(const model::LayerGraph::Gradients& gradients, int64_t /*length*/) override {
    sum_.Add(gradients);
    return absl::OkStatus();
  }

  bool wants_mlp() const override { return true; }
  void AddMlp(const at::Tensor& gradient) override { sum_.AddMlp(gradient); }

  absl::Status Save() override {
    LF_ASSIGN_OR_RETURN(const calibrate::LinearFisher fisher,
                        model::CatchTorch([&] { return sum_.Finish(); }, "statistics"));
    return SaveLinearFisher(path_, fisher);
  }

 private:
  const std::filesystem::path path_;
  calibrate::LinearFisherSum sum_;
};

// Of all that statistics of the calibration tokens depend on, whatever is made of them.
std::string KeyOf(const Attempt& attempt, const Inputs& inputs, absl::string_view what) {
  const auto* ids = reinterpret_cast<const char*>(inputs.sequences.ids.data());
  return Sha256Hex(absl::StrCat(
      kVersion, "\n", what, "\n", inputs.source_digest, "\n", static_cast<int>(attempt.spec.dtype),
      "\n", attempt.device.is_cuda() ? "cuda" : "cpu", "\n", inputs.sequences.length, "\n",
      Sha256Hex({ids, inputs.sequences.ids.size() * sizeof(int32_t)})));
}

LayerFilesId MomentsId(const Attempt& attempt, const Inputs& inputs) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  // Names every member: one that is forgotten here would be missing from what is kept.
  const auto& [down_covariance, attention_rows] = NeedsOf(*attempt.spec.low_rank, config);
  return {
      .key = KeyOf(attempt, inputs, "linear moments"),
      .layers = config.num_layers,
      .extent = {{"down_covariance", down_covariance ? 1 : 0}, {"attention_rows", attention_rows}}};
}

LayerFilesId FisherId(const Attempt& attempt, const Inputs& inputs) {
  const bool sampled = attempt.spec.labels == calibrate::FisherLabels::kSampled;
  const std::string labels = sampled ? absl::StrCat("sampled ", attempt.spec.seed) : "text";
  return {.key = KeyOf(attempt, inputs, absl::StrCat("linear fisher ", labels)),
          .layers = inputs.checkpoint.config().num_layers};
}

// Files of one kind, one a layer, in the order in which a pass makes them.
struct LayerFiles {
  const char* what;  // for people
  LayerFilesId id;
  std::filesystem::path (*path)(const WorkDir& work, int64_t layer);
  bool last_first;
  // A file beside each that is needed until the layer is compressed; it is kept for no other job.
  std::filesystem::path (*beside)(const WorkDir& work, int64_t layer) = nullptr;
};

// Whether calibration leaves the inputs of MLPs: those of compressed layers come later.
bool KeepsMlpRows(const LowRankSpec& spec) {
  return spec.mlp != MlpCompression::kLocal && !spec.compressed_activations;
}

int64_t FinishedOf(const Attempt& attempt, const LayerFiles& files) {
  std::error_code error;
  const auto is_there = [&](const std::filesystem::path& path) {
    return std::filesystem::exists(path, error);
  };
  for (int64_t done = 0; done < files.id.layers; ++done) {
    const int64_t layer = files.last_first ? files.id.layers - 1 - done : done;
    const bool complete = files.beside == nullptr || is_there(files.beside(attempt.work, layer)) ||
                          is_there(FactorsPath(attempt.work, layer));
    if (!complete || !is_there(files.path(attempt.work, layer))) return done;
  }
  return files.id.layers;
}

// Takes what an earlier job left, or collects from layer `finished` (in the pass's order) on and
// keeps it for later ones. Returns tokens as `collect` does.
absl::StatusOr<int64_t> CollectOrRestore(
    Attempt& attempt, const LayerFiles& files,
    const std::function<absl::StatusOr<int64_t>(int64_t finished)>& collect) {
  const LayerFileStore store{KeptFolder(attempt.statistics)};
  const auto path = [&](int64_t layer) { return files.path(attempt.work, layer); };
  const int64_t finished = FinishedOf(attempt, files);
  int64_t tokens = 0;
  if (finished < files.id.layers) {
    bool restored = false;
    if (files.beside == nullptr) {
      LF_ASSIGN_OR_RETURN(restored, store.Restore(files.id, path));
    }
    if (restored) {
      attempt.events.Info(absl::StrCat(
          "an earlier job has calibrated this model on these tokens: ", files.what, " are used"));
      return 0;
    }
    LF_ASSIGN_OR_RETURN(tokens, collect(finished));
  }
  // The attempt that finished them may have died before it kept them; the job does not depend on
  // it.
  if (store.Has(files.id)) return tokens;
  if (const absl::Status kept = store.Keep(files.id, path); !kept.ok()) {
    attempt.events.Warning(
        absl::StrCat(files.what, " are not kept for later jobs: ", kept.message()));
  }
  return tokens;
}

absl::StatusOr<int64_t> CollectMoments(Attempt& attempt, const Inputs& inputs, double share,
                                       int64_t finished) {
  LayerProgress progress(attempt, inputs, {.part = {0, share}});
  const bool mlp_rows = KeepsMlpRows(*attempt.spec.low_rank);
  const calibrate::LayerPassOptions options =
      LinearPassOptions(attempt, inputs, {.finished = finished, .mlp_rows = mlp_rows}, progress,
                        [&](int64_t layer, const calibrate::LinearMoments& moments) {
                          return SaveLinearMoments(LinearMomentsPath(attempt.work, layer), moments);
                        });
  LF_RETURN_IF_ERROR(
      WithCalibrationReason(calibrate::RunLayerPass(inputs.checkpoint, inputs.sequences, options)));
  return progress.WorkDone();
}

absl::StatusOr<int64_t> CollectFisher(Attempt& attempt, const Inputs& inputs, double begin,
                                      int64_t finished) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  const TokenSequences sequences = SequencesOfGradient(inputs.sequences);
  const double tokens = double(sequences.count * sequences.length);
  double work_done = 0;
  calibrate::GradientPassOptions options{.device = attempt.device,
                                         .dtype = attempt.dtype,
                                         .labels = attempt.spec.labels,
                                         .seed = attempt.spec.seed,
                                         .scratch = attempt.work.calibrate()};
  if (finished > 0) options.finished_from = config.num_layers - finished;
  options.begin = [&](int64_t layer) -> absl::StatusOr<std::unique_ptr<calibrate::GradientSums>> {
    return std::make_unique<FisherSums>(LinearFisherPath(attempt.work, layer),
                                        calibrate::LinearFisherSum(config, attempt.device));
  };
  options.stop = [&] { return attempt.stopped(); };
  options.progress = [&](double share, double worked, absl::string_view detail) {
    work_done = worked * tokens;
    attempt.progress.Update(PhasePart{begin, 1}.At(share), work_done, std::string(detail));
  };
  LF_RETURN_IF_ERROR(
      WithCalibrationReason(calibrate::RunGradientPass(inputs.checkpoint, sequences, options)));
  return std::llround(work_done);
}

}  // namespace

absl::StatusOr<int64_t> CollectLinearMoments(Attempt& attempt, const Inputs& inputs) {
  const LowRankSpec& spec = *attempt.spec.low_rank;
  // Global ranks are those of the original's activations, whichever the maps are compressed for.
  const bool moments = !spec.compressed_activations || spec.global_ranks;
  const double back_cost = kGradientCost / double(checkpoint::GradientStep(
                                               inputs.sequences.count, inputs.sequences.length));
  const double share = !spec.loss_aware ? 1 : moments ? 1 / (1 + back_cost) : 0;
  int64_t tokens = 0;
  if (moments) {
    const LayerFiles files{"its moments", MomentsId(attempt, inputs), LinearMomentsPath, false,
                           KeepsMlpRows(spec) ? MlpRowsPath : nullptr};
    LF_ASSIGN_OR_RETURN(tokens, CollectOrRestore(attempt, files, [&](int64_t finished) {
                          return CollectMoments(attempt, inputs, share, finished);
                        }));
  }
  if (!spec.loss_aware) return tokens;
  const LayerFiles files{"its gradients", FisherId(attempt, inputs), LinearFisherPath, true};
  LF_ASSIGN_OR_RETURN(const int64_t back, CollectOrRestore(attempt, files, [&](int64_t finished) {
                        return CollectFisher(attempt, inputs, share, finished);
                      }));
  return tokens + back;
}

}  // namespace latentforge::convert
