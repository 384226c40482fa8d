#include "worker/calibrate/anchor_pass.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/calibrate/anchor_sums.h"
#include "worker/calibrate/hidden_file.h"
#include "worker/calibrate/layer_input.h"
#include "worker/model/decoder.h"
#include "worker/model/torch_guard.h"

namespace latentforge::calibrate {
namespace {

// Of a layer's moments and its factorisation, in units of one stream through one layer.
constexpr double kMomentsCost = 1;

// One pass; borrows everything. Not safe for concurrent use.
class Pass {
 public:
  Pass(const checkpoint::Checkpoint& checkpoint, const TokenSequences& sequences,
       const AnchorPassOptions& options, model::Decoder decoder)
      : sequences_(sequences),
        options_(options),
        layers_(checkpoint.config().num_layers),
        loader_(checkpoint, options.device, options.dtype),
        decoder_(std::move(decoder)),
        shape_(ShapeOf(sequences, loader_)) {}

  absl::Status Run() {
    const int64_t last = LastUnfinished();
    if (last >= 0) {
      const int64_t begin = FirstLayer();
      done_ = start_ = double(begin) * (kMomentsCost + 2);
      for (int64_t layer = begin; layer <= last; ++layer) {
        LF_RETURN_IF_ERROR(
            Annotate(RunLayer(layer, layer < last), absl::StrCat("anchored pass, layer ", layer)));
      }
    }
    for (int64_t layer = 0; layer < layers_; ++layer) LF_RETURN_IF_ERROR(RemoveStreams(layer));
    return absl::OkStatus();
  }

 private:
  std::filesystem::path OriginalPath(int64_t layer) const {
    return options_.scratch / absl::StrCat("original.", layer, ".bin");
  }
  std::filesystem::path ConvertedPath(int64_t layer) const {
    return options_.scratch / absl::StrCat("converted.", layer, ".bin");
  }

  bool IsFinished(int64_t layer) const { return options_.finished[size_t(layer)]; }

  // -1 when all are finished. What follows it needs no streams.
  int64_t LastUnfinished() const {
    int64_t layer = layers_ - 1;
    while (layer >= 0 && IsFinished(layer)) --layer;
    return layer;
  }

  int64_t FirstLayer() const {
    int64_t layer = 0;
    while (IsFinished(layer)) ++layer;
    const auto whole = [&](const std::filesystem::path& path) {
      return HiddenFile::Open(path, shape_).ok();
    };
    while (layer > 0 && !(whole(OriginalPath(layer)) && whole(ConvertedPath(layer)))) --layer;
    return layer;
  }

  absl::Status RemoveStreams(int64_t layer) const {
    LF_RETURN_IF_ERROR(RemoveTree(OriginalPath(layer)));
    return RemoveTree(ConvertedPath(layer));
  }

  absl::Status RunLayer(int64_t layer, bool go_on) {
    LF_ASSIGN_OR_RETURN(model::LayerWeights weights, loader_.Layer(layer));
    LF_ASSIGN_OR_RETURN(const LayerInput original,
                        LayerInput::Open(layer, OriginalPath(layer), sequences_, loader_));
    LF_ASSIGN_OR_RETURN(const LayerInput converted,
                        LayerInput::Open(layer, ConvertedPath(layer), sequences_, loader_));
    if (IsFinished(layer)) {
      done_ += kMomentsCost;
      start_ += kMomentsCost;
    } else {
      LF_RETURN_IF_ERROR(Factorize(weights, original, converted));
    }
    if (!go_on) return absl::OkStatus();
    LF_RETURN_IF_ERROR(WriteStream(OriginalPath(layer + 1), "original", weights, original));
    LF_RETURN_IF_ERROR(options_.convert(layer, weights));
    LF_RETURN_IF_ERROR(WriteStream(ConvertedPath(layer + 1), "converted", weights, converted));
    return RemoveStreams(layer);
  }

  absl::Status Factorize(const model::LayerWeights& weights, const LayerInput& original,
                         const LayerInput& converted) {
    const int64_t layer = weights.layer;
    LF_ASSIGN_OR_RETURN(
        AnchorSums sums,
        model::CatchTorch([&] { return AnchorSums(shape_.width, options_.device); }, "moments"));
    LF_RETURN_IF_ERROR(
        EachBatch(kMomentsCost, absl::StrCat("moments, layer ", layer + 1, " of ", layers_),
                  [&](int64_t first, int64_t count) -> absl::Status {
                    const auto normed = [&](const LayerInput& input) -> absl::StatusOr<at::Tensor> {
                      LF_ASSIGN_OR_RETURN(const at::Tensor states, input.Read(first, count));
                      return decoder_.AttentionInput(weights, states.flatten(0, 1));
                    };
                    LF_ASSIGN_OR_RETURN(const at::Tensor x_o, normed(original));
                    LF_ASSIGN_OR_RETURN(const at::Tensor x_c, normed(converted));
                    sums.Add(x_o, x_c, sequences_.length);
                    return absl::OkStatus();
                  }));
    LF_ASSIGN_OR_RETURN(const factorize::AnchorMoments moments,
                        model::CatchTorch([&] { return std::move(sums).Finish(); }, "moments"));
    return options_.factorize(layer, moments);
  }

  // What the layer makes of a stream, as a file that counts as whole once it has its name.
  absl::Status WriteStream(const std::filesystem::path& path, absl::string_view model,
                           const model::LayerWeights& weights, const LayerInput& input) {
    LF_ASSIGN_OR_RETURN(HiddenFile file, HiddenFile::Create(PartialPath(path), shape_));
    LF_RETURN_IF_ERROR(
        EachBatch(1, absl::StrCat(model, " model, layer ", weights.layer + 1, " of ", layers_),
                  [&](int64_t first, int64_t count) -> absl::Status {
                    LF_ASSIGN_OR_RETURN(const at::Tensor hidden, input.Read(first, count));
                    LF_RETURN_IF_ERROR(decoder_.Forward(weights, hidden));
                    return file.Write(first, hidden.to(at::kCPU));
                  }));
    return CommitFile(path);
  }

  // body(first, count) for all sequences, which cost `cost` together.
  template <typename F>
  absl::Status EachBatch(double cost, absl::string_view detail, const F& body) {
    const int64_t batch = std::max<int64_t>(1, options_.batch_tokens / sequences_.length);
    for (int64_t first = 0; first < sequences_.count; first += batch) {
      if (options_.stop && options_.stop()) {
        return absl::CancelledError("the anchored pass was stopped");
      }
      const int64_t count = std::min(batch, sequences_.count - first);
      LF_RETURN_IF_ERROR(
          model::CatchTorch([&] { return body(first, count); }, absl::StrCat("sequence ", first)));
      done_ += cost * double(count) / double(sequences_.count);
      Report(detail);
    }
    return absl::OkStatus();
  }

  // The last layer's output is of no use.
  void Report(absl::string_view detail) const {
    if (!options_.progress) return;
    const double total = double(layers_) * (kMomentsCost + 2) - 2;
    options_.progress(done_ / total, (done_ - start_) / total, detail);
  }

  const TokenSequences& sequences_;
  const AnchorPassOptions& options_;
  const int64_t layers_;
  model::WeightLoader loader_;
  model::Decoder decoder_;
  HiddenShape shape_;
  double done_ = 0;   // in units of one stream through one layer
  double start_ = 0;  // of it, by earlier runs
};

}  // namespace

absl::Status RunAnchorPass(const checkpoint::Checkpoint& checkpoint,
                           const TokenSequences& sequences, const AnchorPassOptions& options) {
  LF_RETURN_IF_ERROR(CheckPass(checkpoint, sequences));
  if (int64_t(options.finished.size()) != checkpoint.config().num_layers) {
    return absl::InvalidArgumentError(absl::StrCat("the anchored pass knows of ",
                                                   options.finished.size(), " layers, expected ",
                                                   checkpoint.config().num_layers));
  }
  LF_ASSIGN_OR_RETURN(
      model::Decoder decoder,
      model::Decoder::Create(checkpoint.config(), options.device, options.dtype, sequences.length));
  return Pass(checkpoint, sequences, options, std::move(decoder)).Run();
}

}  // namespace latentforge::calibrate
