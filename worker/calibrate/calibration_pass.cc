#include "worker/calibrate/calibration_pass.h"

#include <ATen/ATen.h>

#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/calibrate/layer_pass.h"
#include "worker/calibrate/statistics_collector.h"
#include "worker/model/torch_guard.h"
#include "worker/model/weights.h"

namespace latentforge::calibrate {
namespace {

class StatisticsSums : public LayerSums {
 public:
  StatisticsSums(int64_t layer, StatisticsCollector collector, const CalibrationOptions& options)
      : layer_(layer), collector_(std::move(collector)), options_(options) {}

  absl::Status Add(model::LayerPoint point, const at::Tensor& rows) override {
    return point == model::LayerPoint::kAttentionInput ? collector_.Add(rows) : absl::OkStatus();
  }

  absl::Status Save() override {
    LF_ASSIGN_OR_RETURN(const factorize::LayerStatistics statistics,
                        model::CatchTorch([&] { return collector_.Finish(); }, "statistics"));
    return options_.save(layer_, statistics);
  }

 private:
  const int64_t layer_;
  StatisticsCollector collector_;
  const CalibrationOptions& options_;
};

// K and V in full precision, so that the Grams belong to the weights that are factorised.
absl::StatusOr<std::unique_ptr<LayerSums>> Begin(const model::WeightLoader& loader, int64_t layer,
                                                 const CalibrationOptions& options) {
  const auto load = [&](absl::string_view suffix) {
    return loader.Tensor(checkpoint::LayerTensor(layer, suffix), at::kFloat);
  };
  LF_ASSIGN_OR_RETURN(const at::Tensor key, load("self_attn.k_proj.weight"));
  LF_ASSIGN_OR_RETURN(const at::Tensor value, load("self_attn.v_proj.weight"));
  LF_ASSIGN_OR_RETURN(StatisticsCollector collector,
                      model::CatchTorch(
                          [&] {
                            return StatisticsCollector(key.to(options.device),
                                                       value.to(options.device), options.needs);
                          },
                          "statistics"));
  return std::make_unique<StatisticsSums>(layer, std::move(collector), options);
}

}  // namespace

absl::Status RunCalibration(const checkpoint::Checkpoint& checkpoint,
                            const TokenSequences& sequences, const CalibrationOptions& options) {
  const model::WeightLoader loader(checkpoint, options.device, options.dtype);
  return RunLayerPass(checkpoint, sequences,
                      {.device = options.device,
                       .dtype = options.dtype,
                       .scratch = options.scratch,
                       .first_layer = options.first_layer,
                       .batch_tokens = options.batch_tokens,
                       .begin = [&](int64_t layer) { return Begin(loader, layer, options); },
                       .stop = options.stop,
                       .progress = options.progress});
}

}  // namespace latentforge::calibrate
