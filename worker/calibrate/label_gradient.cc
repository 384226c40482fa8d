#include "worker/calibrate/label_gradient.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "worker/model/layer_ops.h"
#include "worker/model/tensor_rows.h"
#include "worker/model/torch_guard.h"

namespace latentforge::calibrate {
namespace {

// exp(logits - log_total) less 1 at each row's label where that is a column; rounded to
// the logits' type after the subtraction. May overwrite logits.
at::Tensor SoftmaxError(const at::Tensor& logits, const at::Tensor& log_total,
                        const at::Tensor& labels) {
  if (model::HasRowKernels(logits)) {
    model::WithElementType(logits, [&]<typename T>(T) {
      model::SoftmaxErrorRows<T>(model::RowsOf<T>(logits), log_total.const_data_ptr<float>(),
                                 labels.const_data_ptr<int64_t>());
    });
    return logits;
  }
  const at::Tensor error = (logits.to(at::kFloat) - log_total.unsqueeze(1)).exp_();
  const at::Tensor inside = labels.ge(0).logical_and(labels.lt(logits.size(1)));
  const at::Tensor rows = inside.nonzero().squeeze(1);
  error.index_put_({rows, labels.index_select(0, rows)},
                   at::full({rows.size(0)}, -1.0, error.options()), /*accumulate=*/true);
  return error.to(logits.scalar_type());
}

// Rows of x whose logits are there at once, in blocks of the vocabulary: a first sweep over the
// blocks measures the softmax, a second one forms the gradient from it. Borrows head and options.
class Sweeps {
 public:
  Sweeps(at::Tensor x, const HeadRows& head, const LabelGradientOptions& options)
      : x_(std::move(x)), head_(head), options_(options) {}

  // The log of the softmax's denominator, and the share of each block up to and
  // including it, [rows, blocks] fp64.
  absl::Status Measure() {
    std::vector<at::Tensor> parts;
    LF_RETURN_IF_ERROR(EachBlock([&](int64_t, const at::Tensor& weight) {
      logits_.push_back(x_.mm(weight.t()));
      parts.push_back(model::LogSumExp(logits_.back()));
    }));
    const at::Tensor log_blocks = at::stack(parts, 1);
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

  // Overwrites the logits.
  absl::StatusOr<LabelGradient> Gradient() {
    const at::Tensor total = at::zeros(x_.sizes(), x_.options().dtype(at::kFloat));
    const at::Tensor log_total = log_total_.to(at::kFloat);
    size_t block = 0;
    // A row without a label takes no part: its softmax becomes 0.
    const at::Tensor counted =
        block_.defined()
            ? log_total
            : log_total.masked_fill(labels_.lt(0), std::numeric_limits<float>::infinity());
    LF_RETURN_IF_ERROR(EachBlock([&](int64_t begin, const at::Tensor& weight) {
      const at::Tensor& logits = logits_[block];
      if (block_.defined()) DrawLabels(int64_t(block), begin, logits, log_total);
      total.add_(SoftmaxError(logits, counted, labels_ - begin).mm(weight));
      ++block;
    }));
    return LabelGradient{total.to(x_.scalar_type()), labels_.to(at::kCPU)};
  }

 private:
  // Calls f(first column, head rows) for each block.
  template <typename F>
  absl::Status EachBlock(const F& f) const {
    const int64_t step = std::min(options_.block_vocabulary, options_.vocabulary);
    for (int64_t begin = 0; begin < options_.vocabulary; begin += step) {
      if (options_.stop && options_.stop()) return absl::CancelledError("the gradient was stopped");
      const int64_t end = std::min(begin + step, options_.vocabulary);
      LF_ASSIGN_OR_RETURN(const at::Tensor weight, head_(begin, end));
      f(begin, weight);
    }
    return absl::OkStatus();
  }

  void DrawLabels(int64_t block, int64_t begin, const at::Tensor& logits,
                  const at::Tensor& log_total) {
    const at::Tensor rows = block_.eq(block).nonzero().squeeze(1);
    if (rows.numel() == 0) return;
    const at::Tensor softmax =
        (logits.index_select(0, rows).to(at::kFloat) - log_total.index_select(0, rows).unsqueeze(1))
            .exp_();
    const at::Tensor shares = softmax.to(at::kDouble).cumsum_(1);
    const at::Tensor column = shares.le(remainder_.index_select(0, rows).unsqueeze(1))
                                  .sum(1)
                                  .clamp_max_(softmax.size(1) - 1);
    labels_.index_copy_(0, rows, column + begin);
  }

  const at::Tensor x_;
  const HeadRows& head_;
  const LabelGradientOptions& options_;
  std::vector<at::Tensor> logits_;  // of each block, [rows, width] of x's type
  at::Tensor log_total_;            // [rows] fp64
  at::Tensor shares_;               // [rows, blocks] fp64, cumulative
  at::Tensor block_;                // [rows] the block of a drawn label; undefined for given ones
  at::Tensor remainder_;            // [rows] fp64, the share of the block below the label
  at::Tensor labels_;               // [rows]
};

int64_t RowsTogether(const at::Tensor& x, const LabelGradientOptions& options) {
  const auto row = options.vocabulary * static_cast<int64_t>(x.element_size());
  return std::max<int64_t>(1, options.logit_bytes / std::max<int64_t>(row, 1));
}

// `choose` gives the sweeps their labels, from the values of `rows`, once the softmax has been
// measured.
template <typename F>
absl::StatusOr<LabelGradient> Run(const at::Tensor& x, const HeadRows& head,
                                  const LabelGradientOptions& options, const at::Tensor& rows,
                                  const F& choose) {
  return model::CatchTorch(
      [&]() -> absl::StatusOr<LabelGradient> {
        LabelGradient result{at::empty_like(x), at::empty({x.size(0)}, at::kLong)};
        const int64_t together = RowsTogether(x, options);
        for (int64_t begin = 0; begin < x.size(0); begin += together) {
          const int64_t count = std::min(together, x.size(0) - begin);
          Sweeps sweeps(x.narrow(0, begin, count), head, options);
          LF_RETURN_IF_ERROR(sweeps.Measure());
          choose(sweeps, rows.narrow(0, begin, count));
          LF_ASSIGN_OR_RETURN(const LabelGradient part, sweeps.Gradient());
          result.gradient.narrow(0, begin, count).copy_(part.gradient);
          result.labels.narrow(0, begin, count).copy_(part.labels);
        }
        return result;
      },
      "gradient of the logits");
}

}  // namespace

absl::StatusOr<LabelGradient> SampledLabelGradient(const at::Tensor& x, const at::Tensor& uniforms,
                                                   const HeadRows& head,
                                                   const LabelGradientOptions& options) {
  return Run(x, head, options, uniforms,
             [](Sweeps& sweeps, const at::Tensor& rows) { sweeps.Place(rows); });
}

absl::StatusOr<LabelGradient> TextLabelGradient(const at::Tensor& x, const at::Tensor& labels,
                                                const HeadRows& head,
                                                const LabelGradientOptions& options) {
  return Run(x, head, options, labels,
             [](Sweeps& sweeps, const at::Tensor& rows) { sweeps.Give(rows); });
}

}  // namespace latentforge::calibrate
