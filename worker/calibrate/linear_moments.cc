#include "worker/calibrate/linear_moments.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace latentforge::calibrate {
namespace {

// Rows of one fp32 product; longer sums lose digits before they reach fp64.
constexpr int64_t kProductRows = 1024;

}  // namespace

MomentSum::MomentSum(int64_t width, bool covariance, const at::Tensor& like) {
  const auto totals = like.options().dtype(at::kDouble);
  sum_ = at::zeros({width}, totals);
  sum_abs_ = at::zeros({width}, totals);
  if (covariance) covariance_ = at::zeros({width, width}, totals);
}

absl::Status MomentSum::Add(const at::Tensor& x) {
  if (x.dim() != 2 || x.size(1) != sum_.size(0)) {
    return absl::InvalidArgumentError(absl::StrCat("calibration inputs have ",
                                                   x.dim() == 2 ? x.size(1) : -1,
                                                   " channels, expected ", sum_.size(0)));
  }
  for (int64_t begin = 0; begin < x.size(0); begin += kProductRows) {
    const at::Tensor block =
        x.narrow(0, begin, std::min(kProductRows, x.size(0) - begin)).to(at::kFloat);
    sum_ += block.sum(0, /*keepdim=*/false, at::kDouble);
    sum_abs_ += block.abs().sum(0, /*keepdim=*/false, at::kDouble);
    if (covariance_.defined()) covariance_ += at::mm(block.t(), block);
  }
  rows_ += x.size(0);
  return absl::OkStatus();
}

absl::StatusOr<low_rank::InputMoments> MomentSum::Finish() const {
  if (rows_ == 0) return absl::FailedPreconditionError("no calibration tokens were seen");
  bool finite = true;
  const auto mean = [&](const at::Tensor& sum) {
    if (!sum.defined()) return at::Tensor();
    const at::Tensor result = (sum / double(rows_)).to(at::kCPU);
    finite = finite && at::isfinite(result).all().item<bool>();
    return result;
  };
  low_rank::InputMoments moments{.tokens = rows_,
                                 .mean = mean(sum_),
                                 .mean_abs = mean(sum_abs_),
                                 .covariance = mean(covariance_)};
  if (!finite) {
    return absl::DataLossError("calibration statistics are not finite (NaN or infinity)");
  }
  return moments;
}

}  // namespace latentforge::calibrate
