#include "worker/calibrate/loss_moments.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace latentforge::calibrate {
namespace {

// Rows of one fp32 product; longer sums lose digits before they reach fp64.
constexpr int64_t kBlockRows = 1024;

void AddGram(const at::Tensor& rows, const at::Tensor& total) { total.add_(rows.t().mm(rows)); }

}  // namespace

LossMoments::LossMoments(const at::Tensor& weight) : weight_(weight.to(at::kFloat).t()) {
  const int64_t n = weight.size(0);
  for (at::Tensor* total : {&output_, &output_first_, &fisher_, &fisher_first_}) {
    *total = at::zeros({n, n}, weight.options().dtype(at::kDouble));
  }
}

void LossMoments::Add(const at::Tensor& x, const at::Tensor& gradient, int64_t length) {
  for (int64_t begin = 0; begin < x.size(0); begin += kBlockRows) {
    const int64_t count = std::min(kBlockRows, x.size(0) - begin);
    AddGram(x.narrow(0, begin, count).to(at::kFloat).mm(weight_), output_);
    AddGram(gradient.narrow(0, begin, count).to(at::kFloat), fisher_);
  }
  const auto first = [&](const at::Tensor& rows) {
    return rows.slice(0, 0, rows.size(0), length).to(at::kFloat);
  };
  AddGram(first(x).mm(weight_), output_first_);
  AddGram(first(gradient), fisher_first_);
  tokens_ += x.size(0);
  sequences_ += x.size(0) / length;
}

absl::StatusOr<factorize::LossStatistics> LossMoments::Finish() const {
  if (tokens_ == 0) return absl::FailedPreconditionError("no calibration tokens were seen");
  const auto mean = [](const at::Tensor& sum, int64_t count) {
    return (sum / double(count)).to(at::kCPU);
  };
  factorize::LossStatistics result{.tokens = tokens_,
                                   .sequences = sequences_,
                                   .output = mean(output_, tokens_),
                                   .output_first = mean(output_first_, sequences_),
                                   .fisher = mean(fisher_, tokens_),
                                   .fisher_first = mean(fisher_first_, sequences_)};
  for (const at::Tensor* moment :
       {&result.output, &result.output_first, &result.fisher, &result.fisher_first}) {
    if (!at::isfinite(*moment).all().item<bool>()) {
      return absl::DataLossError("calibration statistics are not finite (NaN or infinity)");
    }
  }
  return result;
}

}  // namespace latentforge::calibrate
