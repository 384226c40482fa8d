#include "worker/calibrate/calibration_pass.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/calibrate/hidden_file.h"
#include "worker/calibrate/layer_input.h"
#include "worker/calibrate/statistics_collector.h"
#include "worker/model/decoder.h"
#include "worker/model/torch_guard.h"
#include "worker/model/weights.h"

namespace latentforge::calibrate {
namespace {

// One pass; borrows everything. Not safe for concurrent use.
class Pass {
 public:
  Pass(const checkpoint::Checkpoint& checkpoint, const TokenSequences& sequences,
       const CalibrationOptions& options, model::Decoder decoder)
      : sequences_(sequences),
        options_(options),
        config_(checkpoint.config()),
        loader_(checkpoint, options.device, options.dtype),
        decoder_(std::move(decoder)),
        shape_(ShapeOf(sequences, loader_)) {}

  absl::Status Run() {
    LF_ASSIGN_OR_RETURN(int64_t layer, StartLayer());
    for (; layer < config_.num_layers; ++layer) {
      LF_RETURN_IF_ERROR(Annotate(RunLayer(layer), absl::StrCat("calibration of layer ", layer)));
    }
    return RemoveTree(HiddenPath(options_.scratch, config_.num_layers));
  }

 private:
  absl::StatusOr<int64_t> StartLayer() const {
    if (options_.first_layer == 0 || options_.first_layer >= config_.num_layers) {
      return options_.first_layer;
    }
    const auto hidden =
        HiddenFile::Open(HiddenPath(options_.scratch, options_.first_layer), shape_);
    if (hidden.ok()) return options_.first_layer;
    if (absl::IsNotFound(hidden.status()) || absl::IsDataLoss(hidden.status())) return 0;
    return hidden.status();
  }

  absl::Status RunLayer(int64_t layer) {
    LF_ASSIGN_OR_RETURN(const model::LayerWeights weights, loader_.Layer(layer));
    LF_ASSIGN_OR_RETURN(
        const LayerInput input,
        LayerInput::Open(layer, HiddenPath(options_.scratch, layer), sequences_, loader_));
    std::optional<HiddenFile> output;
    if (layer + 1 < config_.num_layers) {
      LF_ASSIGN_OR_RETURN(output,
                          HiddenFile::Create(HiddenPath(options_.scratch, layer + 1), shape_));
    }
    const bool collect = layer >= options_.first_layer;
    std::optional<StatisticsCollector> collector;
    if (collect) {
      LF_ASSIGN_OR_RETURN(collector, MakeCollector(layer));
    }

    const int64_t batch = std::max<int64_t>(1, options_.batch_tokens / sequences_.length);
    for (int64_t first = 0; first < sequences_.count; first += batch) {
      if (options_.stop && options_.stop()) return absl::CancelledError("calibration was stopped");
      const int64_t count = std::min(batch, sequences_.count - first);
      LF_RETURN_IF_ERROR(model::CatchTorch(
          [&] { return RunBatch(weights, first, count, input, output, collector); },
          absl::StrCat("sequence ", first)));
      if (options_.progress) options_.progress(layer, (first + count) * sequences_.length);
    }
    if (collect) {
      LF_ASSIGN_OR_RETURN(const factorize::LayerStatistics statistics,
                          model::CatchTorch([&] { return collector->Finish(); }, "statistics"));
      LF_RETURN_IF_ERROR(options_.save(layer, statistics));
    }
    return RemoveTree(HiddenPath(options_.scratch, layer));
  }

  // K and V in full precision, so that the Grams belong to the weights that are factorised.
  absl::StatusOr<StatisticsCollector> MakeCollector(int64_t layer) const {
    const auto load = [&](absl::string_view suffix) {
      return loader_.Tensor(checkpoint::LayerTensor(layer, suffix), at::kFloat);
    };
    LF_ASSIGN_OR_RETURN(const at::Tensor key, load("self_attn.k_proj.weight"));
    LF_ASSIGN_OR_RETURN(const at::Tensor value, load("self_attn.v_proj.weight"));
    return model::CatchTorch(
        [&] {
          return StatisticsCollector(key.to(options_.device), value.to(options_.device),
                                     options_.needs);
        },
        "statistics");
  }

  absl::Status RunBatch(const model::LayerWeights& weights, int64_t first, int64_t count,
                        const LayerInput& input, std::optional<HiddenFile>& output,
                        std::optional<StatisticsCollector>& collector) {
    LF_ASSIGN_OR_RETURN(const at::Tensor hidden, input.Read(first, count));
    const model::LayerObserver observer = [&](int64_t, model::LayerPoint point,
                                              const at::Tensor& x) {
      const bool taken = collector && point == model::LayerPoint::kAttentionInput;
      return taken ? collector->Add(x) : absl::OkStatus();
    };
    LF_RETURN_IF_ERROR(decoder_.Forward(weights, hidden, observer));
    if (!output) return absl::OkStatus();
    return output->Write(first, hidden.to(at::kCPU));
  }

  const TokenSequences& sequences_;
  const CalibrationOptions& options_;
  const checkpoint::ModelConfig& config_;
  model::WeightLoader loader_;
  model::Decoder decoder_;
  HiddenShape shape_;
};

}  // namespace

std::filesystem::path HiddenPath(const std::filesystem::path& scratch, int64_t layer) {
  return scratch / absl::StrCat("hidden.", layer, ".bin");
}

absl::Status RunCalibration(const checkpoint::Checkpoint& checkpoint,
                            const TokenSequences& sequences, const CalibrationOptions& options) {
  LF_RETURN_IF_ERROR(CheckPass(checkpoint, sequences));
  LF_ASSIGN_OR_RETURN(
      model::Decoder decoder,
      model::Decoder::Create(checkpoint.config(), options.device, options.dtype, sequences.length));
  return Pass(checkpoint, sequences, options, std::move(decoder)).Run();
}

}  // namespace latentforge::calibrate
