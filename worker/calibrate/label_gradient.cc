#include "worker/calibrate/label_gradient.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "base/status_macros.h"
#include "worker/model/torch_guard.h"

namespace latentforge::calibrate {
namespace {

// Two sweeps over blocks of the vocabulary: the first measures the softmax, the
// second forms the gradient from it. Borrows everything.
class Sweeps {
 public:
  Sweeps(const at::Tensor& x, const HeadRows& head, const LabelGradientOptions& options)
      : x_(x), head_(head), options_(options) {}

  // The log of the softmax's denominator, and the share of each block up to and
  // including it, [rows, blocks] fp64.
  absl::Status Measure() {
    std::vector<at::Tensor> maxima;
    std::vector<at::Tensor> sums;
    LF_RETURN_IF_ERROR(EachBlock([&](int64_t, const at::Tensor& logits, const at::Tensor&) {
      const at::Tensor maximum = logits.amax(1, /*keepdim=*/true);
      sums.push_back((logits - maximum).exp_().sum(1).to(at::kDouble));
      maxima.push_back(maximum.squeeze(1).to(at::kDouble));
    }));
    const at::Tensor log_blocks = at::stack(maxima, 1) + at::stack(sums, 1).log();
    log_total_ = at::logsumexp(log_blocks, {1});
    if (!at::isfinite(log_total_).all().item<bool>()) {
      return absl::DataLossError("the output's logits are not finite");
    }
    shares_ = (log_blocks - log_total_.unsqueeze(1)).exp_().cumsum(1);
    return absl::OkStatus();
  }

  // Places each uniform in its block: the remainder is what the block's own
  // distribution decides.
  void Place(const at::Tensor& uniforms) {
    const int64_t blocks = shares_.size(1);
    // Rounding may leave the last share a little under 1.
    const at::Tensor target =
        uniforms.to(shares_.device()) * shares_.narrow(1, blocks - 1, 1).squeeze(1);
    block_ = shares_.le(target.unsqueeze(1)).sum(1).clamp_max_(blocks - 1);
    const at::Tensor before = at::cat({at::zeros_like(shares_.narrow(1, 0, 1)), shares_}, 1)
                                  .gather(1, block_.unsqueeze(1));
    remainder_ = target - before.squeeze(1);
    labels_ = at::full_like(block_, -1);
  }

  void Give(const at::Tensor& labels) { labels_ = labels.to(x_.device()); }

  absl::StatusOr<LabelGradient> Gradient() {
    const at::Tensor total = at::zeros(x_.sizes(), x_.options().dtype(at::kFloat));
    const at::Tensor log_total = log_total_.to(at::kFloat).unsqueeze(1);
    const at::Tensor labelled = block_.defined() ? at::Tensor() : labels_.ge(0).unsqueeze(1);
    int64_t block = 0;
    LF_RETURN_IF_ERROR(
        EachBlock([&](int64_t begin, const at::Tensor& logits, const at::Tensor& weight) {
          const at::Tensor error = (logits - log_total).exp_();  // the softmax
          if (block_.defined()) DrawLabels(block++, begin, error);
          if (labelled.defined()) error.mul_(labelled);
          SubtractOneHot(begin, error);
          total.add_(error.to(x_.scalar_type()).mm(weight));
        }));
    return LabelGradient{total.to(x_.scalar_type()), labels_.to(at::kCPU)};
  }

 private:
  // Calls f(first column, logits [rows, width] fp32, head rows) for each block.
  template <typename F>
  absl::Status EachBlock(const F& f) const {
    const int64_t step = std::min(options_.block_vocabulary, options_.vocabulary);
    for (int64_t begin = 0; begin < options_.vocabulary; begin += step) {
      if (options_.stop && options_.stop()) return absl::CancelledError("the gradient was stopped");
      const int64_t end = std::min(begin + step, options_.vocabulary);
      LF_ASSIGN_OR_RETURN(const at::Tensor weight, head_(begin, end));
      f(begin, x_.mm(weight.t()).to(at::kFloat), weight);
    }
    return absl::OkStatus();
  }

  void DrawLabels(int64_t block, int64_t begin, const at::Tensor& softmax) {
    const at::Tensor rows = block_.eq(block).nonzero().squeeze(1);
    if (rows.numel() == 0) return;
    const at::Tensor shares = softmax.index_select(0, rows).to(at::kDouble).cumsum_(1);
    const at::Tensor column = shares.le(remainder_.index_select(0, rows).unsqueeze(1))
                                  .sum(1)
                                  .clamp_max_(softmax.size(1) - 1);
    labels_.index_copy_(0, rows, column + begin);
  }

  void SubtractOneHot(int64_t begin, const at::Tensor& error) const {
    const at::Tensor column = labels_ - begin;
    const at::Tensor rows = column.ge(0).logical_and(column.lt(error.size(1))).nonzero().squeeze(1);
    error.index_put_({rows, column.index_select(0, rows)},
                     at::full({rows.size(0)}, -1.0, error.options()), /*accumulate=*/true);
  }

  const at::Tensor& x_;
  const HeadRows& head_;
  const LabelGradientOptions& options_;
  at::Tensor log_total_;  // [rows] fp64
  at::Tensor shares_;     // [rows, blocks] fp64, cumulative
  at::Tensor block_;      // [rows] the block of a drawn label; undefined for given ones
  at::Tensor remainder_;  // [rows] fp64, the share of the block below the label
  at::Tensor labels_;     // [rows]
};

}  // namespace

absl::StatusOr<LabelGradient> SampledLabelGradient(const at::Tensor& x, const at::Tensor& uniforms,
                                                   const HeadRows& head,
                                                   const LabelGradientOptions& options) {
  return model::CatchTorch(
      [&]() -> absl::StatusOr<LabelGradient> {
        Sweeps sweeps(x, head, options);
        LF_RETURN_IF_ERROR(sweeps.Measure());
        sweeps.Place(uniforms);
        return sweeps.Gradient();
      },
      "gradient of the logits");
}

absl::StatusOr<LabelGradient> TextLabelGradient(const at::Tensor& x, const at::Tensor& labels,
                                                const HeadRows& head,
                                                const LabelGradientOptions& options) {
  return model::CatchTorch(
      [&]() -> absl::StatusOr<LabelGradient> {
        Sweeps sweeps(x, head, options);
        LF_RETURN_IF_ERROR(sweeps.Measure());
        sweeps.Give(labels);
        return sweeps.Gradient();
      },
      "gradient of the logits");
}

}  // namespace latentforge::calibrate
