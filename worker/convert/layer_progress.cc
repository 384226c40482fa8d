#include "worker/convert/layer_progress.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "worker/convert/error_reason.h"

namespace latentforge::convert {

absl::Status WithCalibrationReason(const absl::Status& status) {
  return WithReasonByCode(status, {{absl::StatusCode::kDataLoss, "NUMERICAL_FAILURE"},
                                   {absl::StatusCode::kNotFound, "CHECKPOINT_CORRUPT"},
                                   {absl::StatusCode::kPermissionDenied, "SCRATCH_NOT_WRITABLE"},
                                   {absl::StatusCode::kInvalidArgument, "INTERNAL"}});
}

LayerProgress::LayerProgress(Attempt& attempt, const Inputs& inputs, const Options& options)
    : attempt_(attempt),
      layers_(double(inputs.checkpoint.config().num_layers)),
      tokens_(double(inputs.sequences.count * inputs.sequences.length)),
      sweeps_(double(options.sweeps)),
      part_(options.part) {}

void LayerProgress::Update(int64_t layer, int64_t tokens) {
  if (layer != layer_) {
    layer_ = layer;
    sweep_ = 0;
    in_sweep_ = 0;
  } else if (double(tokens) <= in_sweep_) {
    ++sweep_;
    in_sweep_ = 0;
  }
  work_done_ += (double(tokens) - in_sweep_) / (layers_ * sweeps_);
  in_sweep_ = double(tokens);
  const double of_layer = (sweep_ + in_sweep_ / tokens_) / sweeps_;
  attempt_.progress.Update(part_.At((double(layer) + of_layer) / layers_), work_done_,
                           absl::StrCat("layer ", layer + 1, " of ", int64_t(layers_)));
}

int64_t LayerProgress::WorkDone() const { return std::llround(work_done_); }

}  // namespace latentforge::convert
