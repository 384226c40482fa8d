// Calibration: statistics of every layer into calibrate/stats.<l>.safetensors.
#include <cmath>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/calibrate/calibration_pass.h"
#include "worker/convert/attempt.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {

int64_t FinishedLayers(const WorkDir& work, int64_t layers) {
  std::error_code error;
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (!std::filesystem::exists(StatisticsPath(work, layer), error)) return layer;
  }
  return layers;
}

absl::StatusOr<int64_t> CollectStatistics(Attempt& attempt, const Inputs& inputs) {
  const int64_t layers = inputs.checkpoint.config().num_layers;
  const int64_t tokens = inputs.sequences.count * inputs.sequences.length;
  const int64_t finished = FinishedLayers(attempt.work, layers);
  if (finished > 0) attempt.progress.Resume(double(finished) / double(layers));
  if (finished == layers) return 0;

  // Tokens, weighted by the share of the layers that they went through here.
  double work_done = 0;
  int64_t previous_layer = -1;
  int64_t previous_tokens = 0;
  calibrate::CalibrationOptions options;
  options.device = attempt.device;
  options.dtype = attempt.dtype;
  options.needs = factorize::NeedsOf(attempt.spec.preconditioner.kind);
  options.scratch = attempt.work.calibrate();
  options.first_layer = finished;
  options.save = [&](int64_t layer, const factorize::LayerStatistics& statistics) {
    return SaveStatistics(StatisticsPath(attempt.work, layer), statistics);
  };
  options.stop = [&] { return attempt.stopped(); };
  options.progress = [&](int64_t layer, int64_t layer_tokens) {
    const int64_t before = layer == previous_layer ? previous_tokens : 0;
    work_done += double(layer_tokens - before) / double(layers);
    previous_layer = layer;
    previous_tokens = layer_tokens;
    const double share = (double(layer) + double(layer_tokens) / double(tokens)) / double(layers);
    attempt.progress.Update(share, work_done, absl::StrCat("layer ", layer + 1, " of ", layers));
  };
  LF_RETURN_IF_ERROR(
      WithReasonByCode(calibrate::RunCalibration(inputs.checkpoint, inputs.sequences, options),
                       {{absl::StatusCode::kDataLoss, "NUMERICAL_FAILURE"},
                        {absl::StatusCode::kNotFound, "CHECKPOINT_CORRUPT"},
                        {absl::StatusCode::kPermissionDenied, "SCRATCH_NOT_WRITABLE"},
                        {absl::StatusCode::kInvalidArgument, "MALFORMED_TOKENIZER"}}));
  return std::llround(work_done);
}

}  // namespace latentforge::convert
