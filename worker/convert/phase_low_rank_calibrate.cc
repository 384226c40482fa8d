// Calibration of the method low_rank: moments of what every linear map is fed into
// calibrate/linear.<l>.safetensors, the Fisher information of what it gives into
// calibrate/fisher.<l>.safetensors.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/calibrate/gradient_pass.h"
#include "worker/convert/attempt.h"
#include "worker/convert/linear_moments_file.h"
#include "worker/convert/linear_pass.h"
#include "worker/convert/phase_files.h"
#include "worker/model/torch_guard.h"

namespace latentforge::convert {
namespace {

using calibrate::TokenSequences;

// One of as many sequences goes back too: means of squares settle soon, and the way back costs
// four times the way forward.
constexpr int64_t kSequencesOfGradient = 8;

// Of the phase, in units of a forward pass over all sequences.
constexpr double kGradientCost = 4.0 / kSequencesOfGradient;

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

template <typename Path>
int64_t CountFrom(const Attempt& attempt, int64_t layers, bool last_first, const Path& path) {
  std::error_code error;
  for (int64_t done = 0; done < layers; ++done) {
    const int64_t layer = last_first ? layers - 1 - done : done;
    if (!std::filesystem::exists(path(attempt.work, layer), error)) return done;
  }
  return layers;
}

// Sequences that are spread over the texts: every eighth.
TokenSequences SequencesOfGradient(const TokenSequences& all) {
  TokenSequences some{.count = 0, .length = all.length};
  for (int64_t i = 0; i < all.count; i += kSequencesOfGradient) {
    const auto ids = all.Sequence(i);
    some.ids.insert(some.ids.end(), ids.begin(), ids.end());
    ++some.count;
  }
  return some;
}

absl::StatusOr<int64_t> CollectMoments(Attempt& attempt, const Inputs& inputs, double share) {
  const int64_t layers = inputs.checkpoint.config().num_layers;
  const int64_t finished = CountFrom(attempt, layers, false, LinearMomentsPath);
  if (finished == layers) return 0;
  LayerProgress progress(attempt, inputs, {.part = {0, share}});
  const calibrate::LayerPassOptions options =
      LinearPassOptions(attempt, inputs, finished, progress,
                        [&](int64_t layer, const calibrate::LinearMoments& moments) {
                          return SaveLinearMoments(LinearMomentsPath(attempt.work, layer), moments);
                        });
  LF_RETURN_IF_ERROR(
      WithCalibrationReason(calibrate::RunLayerPass(inputs.checkpoint, inputs.sequences, options)));
  return progress.WorkDone();
}

absl::StatusOr<int64_t> CollectFisher(Attempt& attempt, const Inputs& inputs, double begin) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  const int64_t finished = CountFrom(attempt, config.num_layers, true, LinearFisherPath);
  if (finished == config.num_layers) return 0;
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
  const double share = !spec.loss_aware ? 1 : moments ? 1 / (1 + kGradientCost) : 0;
  int64_t tokens = 0;
  if (moments) {
    LF_ASSIGN_OR_RETURN(tokens, CollectMoments(attempt, inputs, share));
  }
  if (!spec.loss_aware) return tokens;
  LF_ASSIGN_OR_RETURN(const int64_t back, CollectFisher(attempt, inputs, share));
  return tokens + back;
}

}  // namespace latentforge::convert
