// Calibration: statistics of every layer into calibrate/stats.<l>.safetensors, with
// the Fisher information into calibrate/loss.<l>.safetensors, from the last layer on.
#include <cmath>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/calibrate/calibration_pass.h"
#include "worker/calibrate/fisher_pass.h"
#include "worker/convert/attempt.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/layer_progress.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/statistics_store.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {

namespace {

std::filesystem::path StatisticsOf(const Attempt& attempt, int64_t layer) {
  if (attempt.spec.low_rank) return LinearMomentsPath(attempt.work, layer);
  return attempt.spec.factorization.loss_aware ? LossStatisticsPath(attempt.work, layer)
                                               : StatisticsPath(attempt.work, layer);
}

bool IsFinished(const Attempt& attempt, int64_t layer) {
  std::error_code error;
  return std::filesystem::exists(StatisticsOf(attempt, layer), error);
}

// Forward alone. Returns tokens, weighted by the share of the layers that they went
// through here.
absl::StatusOr<int64_t> CollectMoments(Attempt& attempt, const Inputs& inputs, int64_t finished) {
  LayerProgress progress(attempt, inputs, {});
  calibrate::CalibrationOptions options;
  options.device = attempt.device;
  options.dtype = attempt.dtype;
  options.needs = factorize::NeedsOf(attempt.spec.factorization.preconditioner.kind);
  options.scratch = attempt.work.calibrate();
  options.first_layer = finished;
  options.save = [&](int64_t layer, const factorize::LayerStatistics& statistics) {
    return SaveStatistics(StatisticsPath(attempt.work, layer), statistics);
  };
  options.stop = [&] { return attempt.stopped(); };
  options.progress = [&](int64_t layer, int64_t tokens) { progress.Update(layer, tokens); };
  LF_RETURN_IF_ERROR(WithCalibrationReason(
      calibrate::RunCalibration(inputs.checkpoint, inputs.sequences, options)));
  return progress.WorkDone();
}

// What is wrong before it is saved is the computation's fault, not the file's.
absl::Status CheckFresh(const factorize::LossStatistics& statistics, int64_t n) {
  return WithReasonByCode(factorize::CheckLossStatistics(statistics, n),
                          {{absl::StatusCode::kInternal, "NUMERICAL_FAILURE"}});
}

// Forward and back. Returns tokens, weighted by the share of the pass made here.
absl::StatusOr<int64_t> CollectFisher(Attempt& attempt, const Inputs& inputs, int64_t finished) {
  const int64_t layers = inputs.checkpoint.config().num_layers;
  const double tokens = double(inputs.sequences.count * inputs.sequences.length);
  double work_done = 0;
  calibrate::FisherOptions options;
  options.pass.device = attempt.device;
  options.pass.dtype = attempt.dtype;
  options.pass.labels = attempt.spec.labels;
  options.pass.seed = attempt.spec.seed;
  options.pass.scratch = attempt.work.calibrate();
  if (finished > 0) options.pass.finished_from = layers - finished;
  options.save = [&](int64_t layer, const factorize::LossStatistics& statistics) {
    LF_RETURN_IF_ERROR(CheckFresh(statistics, 2 * inputs.checkpoint.config().kv_width()));
    return SaveLossStatistics(LossStatisticsPath(attempt.work, layer), statistics);
  };
  options.pass.stop = [&] { return attempt.stopped(); };
  options.pass.progress = [&](double share, double worked, absl::string_view detail) {
    work_done = worked * tokens;
    attempt.progress.Update(share, work_done, std::string(detail));
  };
  LF_RETURN_IF_ERROR(WithCalibrationReason(
      calibrate::RunFisherPass(inputs.checkpoint, inputs.sequences, options)));
  return std::llround(work_done);
}

// The job does not depend on what is kept for others.
void KeepStatistics(Attempt& attempt, const StatisticsStore& store, const StatisticsId& id) {
  if (const absl::Status kept = store.Keep(id, attempt.work); !kept.ok()) {
    attempt.events.Warning(
        absl::StrCat("statistics are not kept for later jobs: ", kept.message()));
  }
}

}  // namespace

int64_t FinishedLayers(const Attempt& attempt, int64_t layers) {
  const bool backward = attempt.spec.factorization.loss_aware && !attempt.spec.low_rank;
  for (int64_t done = 0; done < layers; ++done) {
    if (!IsFinished(attempt, backward ? layers - 1 - done : done)) return done;
  }
  return layers;
}

absl::StatusOr<int64_t> CollectStatistics(Attempt& attempt, const Inputs& inputs) {
  if (attempt.spec.low_rank) return CollectLinearMoments(attempt, inputs);
  const int64_t layers = inputs.checkpoint.config().num_layers;
  const int64_t finished = FinishedLayers(attempt, layers);
  if (finished > 0) attempt.progress.Resume(double(finished) / double(layers));
  if (!attempt.spec.factorization.loss_aware) {
    return finished == layers ? 0 : CollectMoments(attempt, inputs, finished);
  }

  const StatisticsStore store{KeptFolder(attempt.statistics)};
  const StatisticsId id = StatisticsIdOf(attempt.spec, inputs);
  if (finished == layers) {
    // The attempt that finished them may have died before it kept them.
    if (!store.Has(id.key)) KeepStatistics(attempt, store, id);
    return 0;
  }
  LF_ASSIGN_OR_RETURN(const bool restored, store.Restore(id, attempt.work));
  if (restored) {
    attempt.events.Info(
        "an earlier job has calibrated this model on these tokens: "
        "its statistics are used");
    return 0;
  }
  LF_ASSIGN_OR_RETURN(const int64_t tokens, CollectFisher(attempt, inputs, finished));
  KeepStatistics(attempt, store, id);
  return tokens;
}

}  // namespace latentforge::convert
