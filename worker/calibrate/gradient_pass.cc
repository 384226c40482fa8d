#include "worker/calibrate/gradient_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/calibrate/hidden_file.h"
#include "worker/calibrate/label_gradient.h"
#include "worker/calibrate/layer_input.h"
#include "worker/model/decoder.h"
#include "worker/model/layer_graph.h"
#include "worker/model/torch_guard.h"
#include "worker/model/weights.h"

namespace latentforge::calibrate {
namespace {

// A layer's way back costs its forward pass again and about twice that.
constexpr double kBackwardCost = 3;

// The uniform numbers of one sequence, the same in whatever batch it is.
at::Tensor Uniforms(uint64_t seed, int64_t sequence, int64_t length) {
  std::seed_seq mixed{uint32_t(seed), uint32_t(seed >> 32), uint32_t(sequence)};
  std::mt19937_64 generator(mixed);
  at::Tensor result = at::empty({length}, at::kDouble);
  double* data = result.mutable_data_ptr<double>();
  // 53 bits: every double of [0, 1) with that spacing, on every platform.
  for (int64_t i = 0; i < length; ++i) data[i] = double(generator() >> 11) * 0x1p-53;
  return result;
}

// One pass; borrows everything. Not safe for concurrent use.
class Pass {
 public:
  Pass(const checkpoint::Checkpoint& checkpoint, const TokenSequences& sequences,
       const GradientPassOptions& options, model::Decoder decoder, model::LayerGraph graph)
      : sequences_(sequences),
        options_(options),
        config_(checkpoint.config()),
        layers_(checkpoint.config().num_layers),
        loader_(checkpoint, options.device, options.dtype),
        decoder_(std::move(decoder)),
        graph_(std::move(graph)),
        shape_(ShapeOf(sequences, loader_)) {}

  absl::Status Run() {
    // The lowest layer whose input gradient is there has been passed on the way back.
    int64_t passed = layers_ + 1;
    for (int64_t layer = layers_; layer >= 0; --layer) {
      if (IsWhole(GradientPath(layer))) passed = layer;
    }
    // Its statistics are saved before a layer counts as passed. Where some are missing all
    // the same, the way back is made again.
    const int64_t saved = options_.finished_from < 0 ? layers_ : options_.finished_from;
    if (passed < saved) {
      for (int64_t layer = passed; layer < saved; ++layer) {
        LF_RETURN_IF_ERROR(RemoveTree(GradientPath(layer)));
      }
      passed = layers_ + 1;
    }
    const int64_t needed = std::min(passed - 1, layers_);
    int64_t known = 0;
    while (known < needed && IsWhole(HiddenPath(known + 1))) ++known;
    done_ = double(known) + (passed <= layers_ ? HeadCost() : 0) +
            kBackwardCost * double(layers_ - std::min(passed, layers_));
    start_ = done_;
    for (int64_t layer = known; layer < needed; ++layer) {
      LF_RETURN_IF_ERROR(Annotate(Forward(layer), absl::StrCat("calibration of layer ", layer)));
    }
    if (passed > layers_) {
      LF_RETURN_IF_ERROR(Annotate(Head(), "calibration of the output head"));
      passed = layers_;
    }
    for (int64_t layer = passed - 1; layer >= 0; --layer) {
      LF_RETURN_IF_ERROR(Annotate(Backward(layer), absl::StrCat("calibration of layer ", layer)));
    }
    return RemoveTree(GradientPath(0));
  }

 private:
  std::filesystem::path HiddenPath(int64_t layer) const {
    return options_.scratch / absl::StrCat("hidden.", layer, ".bin");
  }
  std::filesystem::path GradientPath(int64_t layer) const {
    return options_.scratch / absl::StrCat("gradient.", layer, ".bin");
  }

  bool IsWhole(const std::filesystem::path& path) const {
    return HiddenFile::Open(path, shape_).ok();
  }

  // In units of one layer's forward pass.
  double HeadCost() const {
    return double(config_.vocab_size) /
           double((config_.gated() ? 3 : 2) * config_.intermediate_size + 2 * config_.q_width());
  }

  // Writes a file of one state for each sequence, under a temporary name.
  // make(first, count) gives [count, T, D].
  template <typename F>
  absl::Status WriteStates(const std::filesystem::path& path, double cost, absl::string_view detail,
                           const F& make) {
    LF_ASSIGN_OR_RETURN(HiddenFile file, HiddenFile::Create(PartialPath(path), shape_));
    const int64_t batch = std::max<int64_t>(1, options_.batch_tokens / sequences_.length);
    for (int64_t first = 0; first < sequences_.count; first += batch) {
      if (options_.stop && options_.stop()) return absl::CancelledError("calibration was stopped");
      const int64_t count = std::min(batch, sequences_.count - first);
      LF_RETURN_IF_ERROR(model::CatchTorch(
          [&]() -> absl::Status {
            LF_ASSIGN_OR_RETURN(const at::Tensor states, make(first, count));
            return file.Write(first, states.to(at::kCPU).contiguous());
          },
          absl::StrCat("sequence ", first)));
      done_ += cost * double(count) / double(sequences_.count);
      Report(detail);
    }
    return absl::OkStatus();
  }

  void Report(absl::string_view detail) const {
    if (!options_.progress) return;
    const double total = double(layers_) * (1 + kBackwardCost) + HeadCost();
    options_.progress(done_ / total, (done_ - start_) / total, detail);
  }

  absl::Status Forward(int64_t layer) {
    LF_ASSIGN_OR_RETURN(const model::LayerWeights weights, loader_.Layer(layer));
    LF_ASSIGN_OR_RETURN(const LayerInput input, OpenInput(layer));
    LF_RETURN_IF_ERROR(WriteStates(
        HiddenPath(layer + 1), 1, absl::StrCat("forward, layer ", layer + 1, " of ", layers_),
        [&](int64_t first, int64_t count) -> absl::StatusOr<at::Tensor> {
          LF_ASSIGN_OR_RETURN(const at::Tensor hidden, input.Read(first, count));
          LF_RETURN_IF_ERROR(decoder_.Forward(weights, hidden));
          return hidden;
        }));
    return CommitFile(HiddenPath(layer + 1));
  }

  // The loss's gradient by the last hidden states.
  absl::Status Head() {
    LF_ASSIGN_OR_RETURN(const model::Norm norm, loader_.FinalNorm());
    LF_ASSIGN_OR_RETURN(const HiddenFile input, HiddenFile::Open(HiddenPath(layers_), shape_));
    LF_RETURN_IF_ERROR(
        WriteStates(GradientPath(layers_), HeadCost(), "output head",
                    [&](int64_t first, int64_t count) -> absl::StatusOr<at::Tensor> {
                      LF_ASSIGN_OR_RETURN(const at::Tensor states, Read(input, first, count));
                      const at::AutoGradMode with_gradients(true);
                      const at::Tensor hidden = states.requires_grad_();
                      const at::Tensor normed = graph_.ApplyNorm(hidden, norm);
                      LF_ASSIGN_OR_RETURN(const at::Tensor gradient,
                                          LossGradient(normed.detach(), first, count));
                      return torch::autograd::grad({normed}, {hidden}, {gradient})[0];
                    }));
    LF_RETURN_IF_ERROR(CommitFile(GradientPath(layers_)));
    return RemoveTree(HiddenPath(layers_));
  }

  // By the normed states [count, T, D] of sequences from `first` on.
  absl::StatusOr<at::Tensor> LossGradient(const at::Tensor& normed, int64_t first, int64_t count) {
    const at::Tensor x = normed.flatten(0, 1);
    const HeadRows head = [this](int64_t begin, int64_t end) {
      return loader_.LmHeadRows(begin, end);
    };
    const LabelGradientOptions options{.vocabulary = config_.vocab_size, .stop = options_.stop};
    absl::StatusOr<LabelGradient> result = absl::InternalError("unset");
    if (options_.labels == FisherLabels::kSampled) {
      std::vector<at::Tensor> uniforms;
      for (int64_t i = first; i < first + count; ++i) {
        uniforms.push_back(Uniforms(options_.seed, i, sequences_.length));
      }
      result = SampledLabelGradient(x, at::cat(uniforms), head, options);
    } else {
      result = TextLabelGradient(x, NextTokens(first, count), head, options);
    }
    LF_RETURN_IF_ERROR(result.status());
    return result->gradient.view(normed.sizes());
  }

  // The last position of a sequence has no next token: -1.
  at::Tensor NextTokens(int64_t first, int64_t count) const {
    at::Tensor labels = at::full({count, sequences_.length}, -1, at::kLong);
    for (int64_t i = 0; i < count; ++i) {
      const auto ids = sequences_.Sequence(first + i).subspan(1);
      std::copy(ids.begin(), ids.end(), labels[i].mutable_data_ptr<int64_t>());
    }
    return labels.flatten();
  }

  absl::Status Backward(int64_t layer) {
    LF_ASSIGN_OR_RETURN(const model::LayerWeights weights, loader_.Layer(layer));
    const bool wanted = options_.finished_from < 0 || layer < options_.finished_from;
    std::unique_ptr<GradientSums> sums;
    if (wanted) {
      LF_ASSIGN_OR_RETURN(sums, options_.begin(layer));
    }
    LF_ASSIGN_OR_RETURN(const LayerInput input, OpenInput(layer));
    LF_ASSIGN_OR_RETURN(const HiddenFile output_gradient,
                        HiddenFile::Open(GradientPath(layer + 1), shape_));
    LF_RETURN_IF_ERROR(WriteStates(
        GradientPath(layer), kBackwardCost,
        absl::StrCat("backward, layer ", layer + 1, " of ", layers_),
        [&](int64_t first, int64_t count) -> absl::StatusOr<at::Tensor> {
          LF_ASSIGN_OR_RETURN(const at::Tensor states, input.Read(first, count));
          LF_ASSIGN_OR_RETURN(const at::Tensor gradient, Read(output_gradient, first, count));
          return Differentiate(weights, states, gradient, sums.get());
        }));
    if (sums) LF_RETURN_IF_ERROR(sums->Save());
    // Only now: a layer with a gradient counts as finished.
    LF_RETURN_IF_ERROR(CommitFile(GradientPath(layer)));
    LF_RETURN_IF_ERROR(RemoveTree(GradientPath(layer + 1)));
    return RemoveTree(HiddenPath(layer));
  }

  absl::StatusOr<at::Tensor> Differentiate(const model::LayerWeights& weights,
                                           const at::Tensor& states,
                                           const at::Tensor& output_gradient,
                                           GradientSums* sums) const {
    model::MlpGradientObserver mlp;
    if (sums != nullptr && sums->wants_mlp()) {
      mlp = [sums](const at::Tensor& gradient) { sums->AddMlp(gradient); };
    }
    const model::LayerGraph::Gradients gradients =
        graph_.Differentiate(weights, states, output_gradient, {}, mlp);
    if (sums != nullptr) {
      LF_RETURN_IF_ERROR(sums->Add(gradients, sequences_.length));
    }
    return gradients.input;
  }

  absl::StatusOr<LayerInput> OpenInput(int64_t layer) const {
    return LayerInput::Open(layer, HiddenPath(layer), sequences_, loader_);
  }

  absl::StatusOr<at::Tensor> Read(const HiddenFile& file, int64_t first, int64_t count) const {
    at::Tensor states = at::empty({count, shape_.length, shape_.width}, shape_.dtype);
    LF_RETURN_IF_ERROR(file.Read(first, states));
    return states.to(options_.device);
  }

  const TokenSequences& sequences_;
  const GradientPassOptions& options_;
  const checkpoint::ModelConfig& config_;
  const int64_t layers_;
  model::WeightLoader loader_;
  model::Decoder decoder_;
  model::LayerGraph graph_;
  HiddenShape shape_;
  double done_ = 0;   // in units of one layer's forward pass
  double start_ = 0;  // of it, by earlier runs
};

}  // namespace

absl::Status RunGradientPass(const checkpoint::Checkpoint& checkpoint,
                             const TokenSequences& sequences, const GradientPassOptions& options) {
  LF_RETURN_IF_ERROR(CheckPass(checkpoint, sequences));
  LF_ASSIGN_OR_RETURN(
      model::Decoder decoder,
      model::Decoder::Create(checkpoint.config(), options.device, options.dtype, sequences.length));
  LF_ASSIGN_OR_RETURN(model::LayerGraph graph,
                      model::LayerGraph::Create(checkpoint.config(), options.device, options.dtype,
                                                sequences.length));
  return Pass(checkpoint, sequences, options, std::move(decoder), std::move(graph)).Run();
}

}  // namespace latentforge::calibrate
