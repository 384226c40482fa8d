#include "worker/convert/linear_pass.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/gradient_sequences.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/calibrate/row_file.h"
#include "worker/convert/low_rank_layer.h"
#include "worker/convert/phase_files.h"
#include "worker/model/torch_guard.h"
#include "worker/model/weights.h"

namespace latentforge::convert {
namespace {

class LinearSums : public calibrate::LayerSums {
 public:
  LinearSums(int64_t layer, calibrate::LinearMomentsCollector collector,
             std::optional<calibrate::RowFileWriter> mlp_rows, KeepMoments keep)
      : layer_(layer),
        collector_(std::move(collector)),
        mlp_rows_(std::move(mlp_rows)),
        keep_(std::move(keep)) {}

  absl::Status Add(model::LayerPoint point, const at::Tensor& rows) override {
    if (mlp_rows_ && point == model::LayerPoint::kMlpInput) {
      LF_RETURN_IF_ERROR(mlp_rows_->Add(rows));
    }
    return collector_.Add(point, rows);
  }

  // The rows first: a layer with moments counts as finished.
  absl::Status Save() override {
    if (mlp_rows_) LF_RETURN_IF_ERROR(mlp_rows_->Finish());
    LF_ASSIGN_OR_RETURN(const calibrate::LinearMoments moments,
                        model::CatchTorch([&] { return collector_.Finish(); }, "statistics"));
    return keep_(layer_, moments);
  }

 private:
  const int64_t layer_;
  calibrate::LinearMomentsCollector collector_;
  std::optional<calibrate::RowFileWriter> mlp_rows_;
  KeepMoments keep_;
};

absl::StatusOr<std::unique_ptr<calibrate::LayerSums>> BeginSums(const Attempt& attempt,
                                                                const Inputs& inputs, int64_t layer,
                                                                bool with_mlp_rows,
                                                                const KeepMoments& keep) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  at::Tensor bias;
  if (checkpoint::LinearMaps(config)[kDown].source_bias) {
    const model::WeightLoader loader(inputs.checkpoint, attempt.device, attempt.dtype);
    const absl::string_view module = checkpoint::LinearMaps(config)[kDown].module;
    const std::string name = checkpoint::LayerTensor(layer, absl::StrCat(module, ".bias"));
    LF_ASSIGN_OR_RETURN(bias, loader.Tensor(name, at::kFloat));
  }
  LF_ASSIGN_OR_RETURN(calibrate::LinearMomentsCollector collector,
                      model::CatchTorch(
                          [&] {
                            return calibrate::LinearMomentsCollector(
                                config, NeedsOf(*attempt.spec.low_rank, config),
                                bias.defined() ? bias.to(attempt.device) : bias, attempt.device);
                          },
                          "statistics"));
  std::optional<calibrate::RowFileWriter> mlp_rows;
  if (with_mlp_rows) {
    LF_ASSIGN_OR_RETURN(mlp_rows, calibrate::RowFileWriter::Create(MlpRowsPath(attempt.work, layer),
                                                                   MlpRowsShape(attempt, inputs)));
  }
  return std::make_unique<LinearSums>(layer, std::move(collector), std::move(mlp_rows), keep);
}

// An inner channel is fitted to this many tokens: more cost inner_width^2 multiplications each.
constexpr int64_t kMlpTokensOfChannel = 8;

}  // namespace

calibrate::HiddenShape MlpRowsShape(const Attempt& attempt, const Inputs& inputs) {
  const checkpoint::ModelConfig& config = inputs.checkpoint.config();
  const int64_t length = inputs.sequences.length;
  const int64_t wanted = kMlpTokensOfChannel * config.intermediate_size;
  return {.sequences = std::min(inputs.sequences.count, (wanted + length - 1) / length),
          .length = length,
          .width = config.hidden_size,
          .dtype = attempt.dtype};
}

calibrate::TokenSequences SequencesOfGradient(const calibrate::TokenSequences& all) {
  const int64_t step = checkpoint::GradientStep(all.count, all.length);
  calibrate::TokenSequences some{.count = 0, .length = all.length};
  for (int64_t i = 0; i < all.count; i += step) {
    const auto ids = all.Sequence(i);
    some.ids.insert(some.ids.end(), ids.begin(), ids.end());
    ++some.count;
  }
  return some;
}

calibrate::LayerPassOptions LinearPassOptions(const Attempt& attempt, const Inputs& inputs,
                                              const LinearPassStart& start, LayerProgress& progress,
                                              const KeepMoments& keep) {
  return {
      .device = attempt.device,
      .dtype = attempt.dtype,
      .scratch = attempt.work.calibrate(),
      .first_layer = start.finished,
      .begin = [&attempt, &inputs, keep, rows = start.mlp_rows](
                   int64_t layer) { return BeginSums(attempt, inputs, layer, rows, keep); },
      .stop = [&attempt] { return attempt.stopped(); },
      .progress = [&progress](int64_t layer, int64_t tokens) { progress.Update(layer, tokens); }};
}

}  // namespace latentforge::convert
