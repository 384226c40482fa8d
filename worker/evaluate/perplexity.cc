#include "worker/evaluate/perplexity.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/evaluate/cross_entropy.h"
#include "worker/model/decoder.h"
#include "worker/model/torch_guard.h"

namespace latentforge::evaluate {
namespace {

// Reading a checkpoint's weights takes about as long as computing 150 tokens on a
// CPU and a few thousand on a GPU; these keep it near 2 %.
constexpr int64_t kGroupTokensCpu = 8192;
constexpr int64_t kGroupTokensCuda = 131072;

double Perplexity(absl::Span<const double> window_nll) {
  if (window_nll.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double sum = std::accumulate(window_nll.begin(), window_nll.end(), 0.0);
  return std::exp(sum / static_cast<double>(window_nll.size()));
}

// One evaluation. Groups of windows go through all layers one after the other.
class Evaluation {
 public:
  Evaluation(const checkpoint::Checkpoint& checkpoint, const TokenWindows& windows,
             const PerplexityOptions& options, model::Decoder decoder)
      : windows_(windows),
        options_(options),
        loader_(checkpoint, options.device, options.dtype, options.stored),
        decoder_(std::move(decoder)),
        window_nll_(options.finished) {}

  absl::StatusOr<PerplexityResult> Run() {
    const int64_t size = GroupSize();
    const auto first = static_cast<int64_t>(options_.finished.size());
    for (int64_t begin = first; begin < windows_.count; begin += size) {
      LF_RETURN_IF_ERROR(RunGroup(begin, std::min(size, windows_.count - begin)));
    }
    return PerplexityResult{.perplexity = Perplexity(window_nll_),
                            .window_nll = window_nll_,
                            .tokens = (windows_.count - first) * windows_.length};
  }

 private:
  int64_t GroupSize() const {
    int64_t tokens = options_.group_tokens;
    if (tokens <= 0) tokens = options_.device.is_cpu() ? kGroupTokensCpu : kGroupTokensCuda;
    const int64_t window_bytes = windows_.length * loader_.config().hidden_size *
                                 static_cast<int64_t>(c10::elementSize(options_.dtype));
    const int64_t fitting = options_.max_hidden_bytes / window_bytes;
    return std::max<int64_t>(1, std::min(tokens / windows_.length, fitting));
  }

  absl::Status RunGroup(int64_t begin, int64_t count) {
    const absl::Span<const int32_t> ids =
        absl::MakeConstSpan(windows_.ids)
            .subspan(static_cast<size_t>(begin * windows_.length),
                     static_cast<size_t>(count * windows_.length));
    LF_ASSIGN_OR_RETURN(const at::Tensor rows, loader_.Embed(ids, windows_.length));
    const at::Tensor hidden = rows.view({count, windows_.length, loader_.config().hidden_size});
    const int64_t layers = loader_.config().num_layers;
    for (int64_t layer = 0; layer < layers; ++layer) {
      LF_RETURN_IF_ERROR(RunLayer(layer, begin, hidden));
      // The output head counts as one more layer.
      Report(static_cast<double>(count * windows_.length * (layer + 1)) /
             static_cast<double>(layers + 1));
    }
    LF_RETURN_IF_ERROR(Finish(begin, hidden, ids));
    Report(0);
    return absl::OkStatus();
  }

  absl::Status RunLayer(int64_t layer, int64_t begin, const at::Tensor& hidden) {
    if (options_.stop && options_.stop()) return absl::CancelledError("evaluation stopped");
    LF_ASSIGN_OR_RETURN(model::LayerWeights weights, loader_.Layer(layer));
    if (options_.adjust_layer) LF_RETURN_IF_ERROR(options_.adjust_layer(layer, weights));
    LF_RETURN_IF_ERROR(decoder_.Forward(weights, hidden));
    return CheckFinite(layer, begin, hidden);
  }

  // A sum is NaN or infinite as soon as one element is. In the states' own type, as
  // bfloat16 has the range of fp32, and a sum in another type begins with a copy.
  absl::Status CheckFinite(int64_t layer, int64_t begin, const at::Tensor& hidden) const {
    return model::CatchTorch(
        [&]() -> absl::Status {
          const at::Tensor sums = hidden.sum({1, 2}).to(at::kCPU, at::kFloat);
          for (int64_t i = 0; i < sums.size(0); ++i) {
            if (std::isfinite(sums.const_data_ptr<float>()[i])) continue;
            return absl::DataLossError(absl::StrCat("layer ", layer, ", window ", begin + i,
                                                    ": the output is not finite"));
          }
          return absl::OkStatus();
        },
        "checking hidden states");
  }

  // Appends the mean NLL of each window of the group. Overwrites `hidden`.
  absl::Status Finish(int64_t begin, const at::Tensor& hidden, absl::Span<const int32_t> ids) {
    LF_ASSIGN_OR_RETURN(const model::Norm norm, loader_.FinalNorm());
    const CrossEntropyOptions options{.vocabulary = loader_.config().vocab_size,
                                      .stop = options_.stop};
    const HeadRows head = [this](int64_t first, int64_t last) {
      return loader_.LmHeadRows(first, last);
    };
    return model::CatchTorch(
        [&]() -> absl::Status {
          const int64_t count = hidden.size(0);
          const at::Tensor targets =
              at::empty({count, windows_.length}, at::TensorOptions(at::kLong));
          std::copy(ids.begin(), ids.end(), targets.mutable_data_ptr<int64_t>());
          // The last position predicts nothing inside its window; it is computed
          // with a target of 0 and left out, which avoids a copy of the states.
          const at::Tensor shifted = targets.roll(-1, 1).reshape({-1}).to(options_.device);
          // The states are of no use after this, so they make room for their norms.
          for (int64_t i = 0; i < count; ++i) {
            LF_ASSIGN_OR_RETURN(const at::Tensor normed, decoder_.FinalNorm(hidden[i], norm));
            hidden[i].copy_(normed);
          }
          LF_ASSIGN_OR_RETURN(const at::Tensor nll,
                              TargetNll(hidden.flatten(0, 1), shifted, head, options));
          const at::Tensor means = nll.view({count, windows_.length})
                                       .narrow(1, 0, windows_.length - 1)
                                       .to(at::kDouble)
                                       .mean(1)
                                       .cpu();
          for (int64_t i = 0; i < count; ++i) {
            const double mean = means.const_data_ptr<double>()[i];
            if (!std::isfinite(mean)) {
              return absl::DataLossError(absl::StrCat("output head, window ", begin + i,
                                                      ": the likelihood is not finite"));
            }
            window_nll_.push_back(mean);
          }
          return absl::OkStatus();
        },
        "output head");
  }

  void Report(double tokens_in_group) const {
    if (!options_.progress) return;
    options_.progress({.windows_total = windows_.count,
                       .tokens_done = static_cast<double>(static_cast<int64_t>(window_nll_.size()) *
                                                          windows_.length) +
                                      tokens_in_group,
                       .tokens_total = windows_.count * windows_.length,
                       .window_nll = window_nll_,
                       .perplexity = Perplexity(window_nll_)});
  }

  const TokenWindows& windows_;
  const PerplexityOptions& options_;
  const model::WeightLoader loader_;
  model::Decoder decoder_;
  std::vector<double> window_nll_;
};

absl::Status CheckRequest(const TokenWindows& windows, const PerplexityOptions& options) {
  if (windows.count < 1 || windows.length < 2 ||
      windows.ids.size() != static_cast<size_t>(windows.count * windows.length)) {
    return absl::InvalidArgumentError(
        absl::StrCat(windows.count, " windows of ", windows.length, " tokens with ",
                     windows.ids.size(), " ids: expected at least one window of at least 2"));
  }
  if (options.finished.size() > static_cast<size_t>(windows.count)) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.finished.size(), " finished windows, expected at most ", windows.count));
  }
  for (size_t i = 0; i < options.finished.size(); ++i) {
    if (!std::isfinite(options.finished[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("finished window ", i, " has a likelihood that is not finite"));
    }
  }
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16) {
    return absl::InvalidArgumentError(absl::StrCat("evaluation in ", c10::toString(options.dtype),
                                                   ", expected Float or BFloat16"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenWindows> CutWindows(absl::Span<const int32_t> tokens, int64_t length,
                                        int64_t count) {
  if (length < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("window length is ", length, ", expected at least 2"));
  }
  if (count < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("number of windows is ", count, ", expected 0 or more"));
  }
  const int64_t available = static_cast<int64_t>(tokens.size()) / length;
  if (available < std::max<int64_t>(count, 1)) {
    const int64_t wanted = std::max<int64_t>(count, 1);
    return absl::InvalidArgumentError(absl::StrCat(
        "the text has ", tokens.size(), " tokens, which is ", available, " windows of ", length,
        ", expected ", wanted, wanted == 1 ? " window" : " windows"));
  }
  const int64_t taken = count == 0 ? available : count;
  const auto end = tokens.begin() + taken * length;
  return TokenWindows{
      .count = taken, .length = length, .ids = std::vector<int32_t>(tokens.begin(), end)};
}

absl::StatusOr<PerplexityResult> EvaluatePerplexity(const checkpoint::Checkpoint& checkpoint,
                                                    const TokenWindows& windows,
                                                    const PerplexityOptions& options) {
  LF_RETURN_IF_ERROR(CheckRequest(windows, options));
  LF_ASSIGN_OR_RETURN(
      model::Decoder decoder,
      model::Decoder::Create(checkpoint.config(), options.device, options.dtype, windows.length));
  return Evaluation(checkpoint, windows, options, std::move(decoder)).Run();
}

}  // namespace latentforge::evaluate
