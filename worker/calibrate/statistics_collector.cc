#include "worker/calibrate/statistics_collector.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace latentforge::calibrate {
namespace {

// Rows of one fp32 product; longer sums lose digits before they reach fp64.
constexpr int64_t kBlockRows = 1024;

}  // namespace

StatisticsCollector::StatisticsCollector(const at::Tensor& key, const at::Tensor& value,
                                         factorize::StatisticsNeeds needs)
    : needs_(needs) {
  const auto totals = key.options().dtype(at::kDouble);
  const int64_t d = key.size(1);
  sum_abs_ = at::zeros({d}, totals);
  sum_square_ = at::zeros({d}, totals);
  if (needs.covariance) covariance_ = at::zeros({d, d}, totals);
  const auto prepare = [&](const at::Tensor& weight) {
    const int64_t m = weight.size(0);
    return Output{.weight = weight.to(at::kFloat).t(),
                  .gram = at::zeros({m, m}, totals),
                  .cross = needs.cross ? at::zeros({m, d}, totals) : at::Tensor()};
  };
  key_ = prepare(key);
  value_ = prepare(value);
}

absl::Status StatisticsCollector::Add(const at::Tensor& x) {
  if (x.dim() != 2 || x.size(1) != sum_abs_.size(0)) {
    return absl::InvalidArgumentError(absl::StrCat("calibration inputs have ",
                                                   x.dim() == 2 ? x.size(1) : -1,
                                                   " channels, expected ", sum_abs_.size(0)));
  }
  for (int64_t begin = 0; begin < x.size(0); begin += kBlockRows) {
    const at::Tensor block =
        x.narrow(0, begin, std::min(kBlockRows, x.size(0) - begin)).to(at::kFloat);
    sum_abs_ += block.abs().sum(0, /*keepdim=*/false, at::kDouble);
    sum_square_ += block.pow(2).sum(0, /*keepdim=*/false, at::kDouble);
    if (needs_.covariance) covariance_ += at::mm(block.t(), block);
    AddOutput(block, key_);
    AddOutput(block, value_);
  }
  tokens_ += x.size(0);
  return absl::OkStatus();
}

void StatisticsCollector::AddOutput(const at::Tensor& x, Output& output) const {
  const at::Tensor y = at::mm(x, output.weight);
  output.gram += at::mm(y.t(), y);
  if (needs_.cross) output.cross += at::mm(y.t(), x);
}

absl::StatusOr<factorize::LayerStatistics> StatisticsCollector::Finish() const {
  if (tokens_ == 0) return absl::FailedPreconditionError("no calibration tokens were seen");
  bool finite = true;
  const auto mean = [&](const at::Tensor& sum) {
    if (!sum.defined()) return at::Tensor();
    const at::Tensor result = (sum / double(tokens_)).to(at::kCPU);
    finite = finite && at::isfinite(result).all().item<bool>();
    return result;
  };
  factorize::LayerStatistics statistics;
  statistics.input = {.tokens = tokens_,
                      .mean_abs = mean(sum_abs_),
                      .mean_square = mean(sum_square_),
                      .covariance = mean(covariance_)};
  statistics.key = {.gram = mean(key_.gram), .cross = mean(key_.cross)};
  statistics.value = {.gram = mean(value_.gram), .cross = mean(value_.cross)};
  if (!finite) {
    return absl::DataLossError("calibration statistics are not finite (NaN or infinity)");
  }
  return statistics;
}

}  // namespace latentforge::calibrate
