// Perplexity of a checkpoint, layer by layer, so that one layer's weights are in
// memory at a time. Protocol: non-overlapping windows, each on its own; mean
// negative log likelihood of the length - 1 targets of a window; plain mean over
// windows; exp.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "checkpoint/checkpoint.h"
#include "worker/model/weights.h"

namespace latentforge::evaluate {

// `count` windows of `length` token ids each, one after the other.
struct TokenWindows {
  int64_t count = 0;
  int64_t length = 0;
  std::vector<int32_t> ids;  // count * length

  absl::Span<const int32_t> Window(int64_t i) const {
    return absl::MakeConstSpan(ids).subspan(static_cast<size_t>(i * length),
                                            static_cast<size_t>(length));
  }
};

// The first `count` windows of a tokenised text; count 0 means all
// floor(tokens / length). The tail is dropped. InvalidArgument when length < 2,
// count < 0, or the text has too few tokens (names both numbers).
absl::StatusOr<TokenWindows> CutWindows(absl::Span<const int32_t> tokens, int64_t length,
                                        int64_t count);

struct PerplexityProgress {
  int64_t windows_total = 0;
  // Work done in tokens: a token counts in full when its window is done, and in
  // part while its window is in some layer.
  double tokens_done = 0;
  int64_t tokens_total = 0;
  // Mean NLL of each finished window, from the first; borrowed.
  absl::Span<const double> window_nll;
  // exp of their mean; NaN while there is none.
  double perplexity = 0;
};

struct PerplexityOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kBFloat16;  // or kFloat
  // Upper limit for the hidden states of the windows that go through the layers
  // together; at least one window does.
  int64_t max_hidden_bytes = int64_t{256} << 20;
  // Windows are taken together until they have this many tokens; 0 means enough
  // to hide the time of reading the weights again for each group.
  int64_t group_tokens = 0;
  // Mean NLL of the first windows, from an earlier run with the same windows.
  std::vector<double> finished;
  // Called with each layer's weights after they are loaded; may replace k and v.
  std::function<absl::Status(int64_t layer, model::LayerWeights& weights)> adjust_layer;
  // The type that the weights will be stored in, where it is another one: all that is loaded is
  // rounded to it. What adjust_layer puts in its place is adjust_layer's.
  std::optional<at::ScalarType> stored;
  // Asked between layers and between blocks of the output; true ends the run with
  // Cancelled.
  std::function<bool()> stop;
  // Called after each layer and after each group, by the calling thread.
  std::function<void(const PerplexityProgress&)> progress;
};

struct PerplexityResult {
  double perplexity = 0;
  std::vector<double> window_nll;  // one per window, natural logarithm
  int64_t tokens = 0;              // that went through the model in this run
};

// Errors: InvalidArgument (ids outside the vocabulary, windows and `finished` that
// do not fit together, a dtype that we do not compute in), DataLoss when a value is
// not finite (names layer and window), Cancelled, and those of WeightLoader.
absl::StatusOr<PerplexityResult> EvaluatePerplexity(const checkpoint::Checkpoint& checkpoint,
                                                    const TokenWindows& windows,
                                                    const PerplexityOptions& options);

}  // namespace latentforge::evaluate
