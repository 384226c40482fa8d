#include "worker/calibrate/layer_pass.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/calibrate/hidden_file.h"
#include "worker/calibrate/layer_input.h"
#include "worker/model/torch_guard.h"

namespace latentforge::calibrate {
namespace {

// One pass; borrows everything. Not safe for concurrent use.
class Pass {
 public:
  Pass(const checkpoint::Checkpoint& checkpoint, const TokenSequences& sequences,
       const LayerPassOptions& options, model::Decoder decoder)
      : sequences_(sequences),
        options_(options),
        layers_(checkpoint.config().num_layers),
        loader_(checkpoint, options.device, options.dtype),
        decoder_(std::move(decoder)),
        shape_(ShapeOf(sequences, loader_)) {}

  absl::Status Run() {
    LF_ASSIGN_OR_RETURN(int64_t layer, StartLayer());
    for (; layer < layers_; ++layer) {
      LF_RETURN_IF_ERROR(Annotate(RunLayer(layer), absl::StrCat("calibration of layer ", layer)));
    }
    return RemoveTree(HiddenPath(options_.scratch, layers_));
  }

 private:
  absl::StatusOr<int64_t> StartLayer() const {
    if (options_.first_layer == 0 || options_.first_layer >= layers_) return options_.first_layer;
    const auto hidden =
        HiddenFile::Open(HiddenPath(options_.scratch, options_.first_layer), shape_);
    if (hidden.ok()) return options_.first_layer;
    if (absl::IsNotFound(hidden.status()) || absl::IsDataLoss(hidden.status())) return 0;
    return hidden.status();
  }

  absl::Status RunLayer(int64_t layer) {
    LF_ASSIGN_OR_RETURN(model::LayerWeights weights, loader_.Layer(layer));
    LF_ASSIGN_OR_RETURN(
        const LayerInput input,
        LayerInput::Open(layer, HiddenPath(options_.scratch, layer), sequences_, loader_));
    std::unique_ptr<LayerSums> sums;
    if (layer >= options_.first_layer) {
      LF_ASSIGN_OR_RETURN(sums, options_.begin(layer));
    }
    if (options_.change) {
      if (sums) {
        std::optional<HiddenFile> none;
        LF_RETURN_IF_ERROR(Sweep(weights, input, sums.get(), none));
        LF_RETURN_IF_ERROR(sums->Save());
      }
      if (layer + 1 < layers_) {
        LF_RETURN_IF_ERROR(options_.change(layer, weights));
        LF_RETURN_IF_ERROR(Advance(weights, input, nullptr));
      }
    } else {
      LF_RETURN_IF_ERROR(Advance(weights, input, sums.get()));
      if (sums) LF_RETURN_IF_ERROR(sums->Save());
    }
    return RemoveTree(HiddenPath(options_.scratch, layer));
  }

  // Writes the input of the next layer, which is whole once it has its name; none after the last.
  absl::Status Advance(const model::LayerWeights& weights, const LayerInput& input,
                       LayerSums* sums) {
    std::optional<HiddenFile> output;
    if (weights.layer + 1 == layers_) return Sweep(weights, input, sums, output);
    const std::filesystem::path path = HiddenPath(options_.scratch, weights.layer + 1);
    LF_ASSIGN_OR_RETURN(output, HiddenFile::Create(PartialPath(path), shape_));
    LF_RETURN_IF_ERROR(Sweep(weights, input, sums, output));
    return CommitFile(path);
  }

  // All sequences through one layer.
  absl::Status Sweep(const model::LayerWeights& weights, const LayerInput& input, LayerSums* sums,
                     std::optional<HiddenFile>& output) {
    const int64_t batch = std::max<int64_t>(1, options_.batch_tokens / sequences_.length);
    for (int64_t first = 0; first < sequences_.count; first += batch) {
      if (options_.stop && options_.stop()) return absl::CancelledError("calibration was stopped");
      const int64_t count = std::min(batch, sequences_.count - first);
      LF_RETURN_IF_ERROR(
          model::CatchTorch([&] { return RunBatch(weights, first, count, input, sums, output); },
                            absl::StrCat("sequence ", first)));
      if (options_.progress) options_.progress(weights.layer, (first + count) * sequences_.length);
    }
    return absl::OkStatus();
  }

  absl::Status RunBatch(const model::LayerWeights& weights, int64_t first, int64_t count,
                        const LayerInput& input, LayerSums* sums,
                        std::optional<HiddenFile>& output) {
    LF_ASSIGN_OR_RETURN(const at::Tensor hidden, input.Read(first, count));
    model::LayerObserver observer;
    if (sums != nullptr) {
      observer = [&](int64_t, model::LayerPoint point, const at::Tensor& rows) {
        return sums->Add(point, rows);
      };
    }
    LF_RETURN_IF_ERROR(decoder_.Forward(weights, hidden, observer));
    if (!output) return absl::OkStatus();
    return output->Write(first, hidden.to(at::kCPU));
  }

  const TokenSequences& sequences_;
  const LayerPassOptions& options_;
  const int64_t layers_;
  model::WeightLoader loader_;
  model::Decoder decoder_;
  HiddenShape shape_;
};

}  // namespace

std::filesystem::path HiddenPath(const std::filesystem::path& scratch, int64_t layer) {
  return scratch / absl::StrCat("hidden.", layer, ".bin");
}

absl::Status RunLayerPass(const checkpoint::Checkpoint& checkpoint, const TokenSequences& sequences,
                          const LayerPassOptions& options) {
  LF_RETURN_IF_ERROR(CheckPass(checkpoint, sequences));
  LF_ASSIGN_OR_RETURN(
      model::Decoder decoder,
      model::Decoder::Create(checkpoint.config(), options.device, options.dtype, sequences.length));
  return Pass(checkpoint, sequences, options, std::move(decoder)).Run();
}

}  // namespace latentforge::calibrate
