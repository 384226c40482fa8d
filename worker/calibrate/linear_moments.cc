#include "worker/calibrate/linear_moments.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::calibrate {
namespace {

// Rows of one fp32 sum or product; longer ones lose digits before they reach fp64.
constexpr int64_t kMostRows = 1024;
constexpr int64_t kLeastRows = 128;
// Of a block in fp32: larger ones come fresh from the kernel each time, which takes longer than the
// sums.
constexpr int64_t kBlockBytes = int64_t{2} << 20;
// Rows that are kept of each call, so that many sequences have some.
constexpr int64_t kKeptOfCall = 256;

}  // namespace

MomentSum::MomentSum(int64_t width, bool covariance, at::Device device) {
  const auto totals = at::TensorOptions(at::kDouble).device(device);
  sum_ = at::zeros({width}, totals);
  sum_abs_ = at::zeros({width}, totals);
  sum_square_ = at::zeros({width}, totals);
  if (covariance) covariance_ = at::zeros({width, width}, totals);
}

absl::Status MomentSum::Add(const at::Tensor& x) {
  if (x.dim() != 2 || x.size(1) != sum_.size(0)) {
    return absl::InvalidArgumentError(absl::StrCat("calibration inputs have ",
                                                   x.dim() == 2 ? x.size(1) : -1,
                                                   " channels, expected ", sum_.size(0)));
  }
  const int64_t fitting = kBlockBytes / (x.size(1) * int64_t{sizeof(float)});
  const int64_t rows = std::clamp(fitting, kLeastRows, kMostRows);
  for (int64_t begin = 0; begin < x.size(0); begin += rows) {
    const at::Tensor block = x.narrow(0, begin, std::min(rows, x.size(0) - begin)).to(at::kFloat);
    sum_ += block.sum(0);
    sum_abs_ += block.abs().sum(0);
    // Also with a covariance, so that a job's moments are the same bits with or without one.
    sum_square_ += block.square().sum(0);
    if (covariance_.defined()) covariance_ += at::mm(block.t(), block);
  }
  rows_ += x.size(0);
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> MomentSum::Mean(const at::Tensor& sum) const {
  if (rows_ == 0) return absl::FailedPreconditionError("no calibration tokens were seen");
  const at::Tensor mean = (sum / double(rows_)).to(at::kCPU);
  if (at::isfinite(mean).all().item<bool>()) return mean;
  return absl::DataLossError("calibration statistics are not finite (NaN or infinity)");
}

absl::StatusOr<low_rank::InputMoments> MomentSum::Finish() const {
  low_rank::InputMoments moments{.tokens = rows_};
  LF_ASSIGN_OR_RETURN(moments.mean, Mean(sum_));
  LF_ASSIGN_OR_RETURN(moments.mean_abs, Mean(sum_abs_));
  if (covariance_.defined()) {
    LF_ASSIGN_OR_RETURN(moments.covariance, Mean(covariance_));
  }
  return moments;
}

absl::StatusOr<at::Tensor> MomentSum::MeanSquare() const { return Mean(sum_square_); }

LinearMomentsCollector::LinearMomentsCollector(const checkpoint::ModelConfig& config,
                                               const LinearMomentsNeeds& needs,
                                               const at::Tensor& down_bias, at::Device device)
    : needs_(needs),
      down_bias_(down_bias.defined() ? down_bias.to(at::kFloat) : down_bias),
      attention_(config.hidden_size, true, device),
      attended_(config.q_width(), true, device),
      mlp_(config.hidden_size, true, device),
      activated_(config.intermediate_size, needs.down_covariance, device),
      mlp_output_(config.hidden_size, true, device) {}

absl::Status LinearMomentsCollector::Add(model::LayerPoint point, const at::Tensor& rows) {
  switch (point) {
    case model::LayerPoint::kAttentionInput:
      if (const int64_t more =
              std::min({needs_.attention_rows - kept_rows_, rows.size(0), kKeptOfCall});
          more > 0) {
        kept_.push_back(rows.narrow(0, 0, more).to(at::kCPU, at::kDouble).clone());
        kept_rows_ += more;
      }
      return attention_.Add(rows);
    case model::LayerPoint::kAttended:
      return attended_.Add(rows);
    case model::LayerPoint::kMlpInput:
      return mlp_.Add(rows);
    case model::LayerPoint::kActivated:
      return activated_.Add(rows);
    case model::LayerPoint::kMlpOutput:
      return mlp_output_.Add(down_bias_.defined() ? rows.to(at::kFloat) - down_bias_ : rows);
  }
  return absl::InternalError("a point of a layer has no sum");
}

absl::StatusOr<LinearMoments> LinearMomentsCollector::Finish() const {
  LinearMoments moments;
  LF_ASSIGN_OR_RETURN(moments.attention, attention_.Finish());
  LF_ASSIGN_OR_RETURN(moments.attended, attended_.Finish());
  LF_ASSIGN_OR_RETURN(moments.mlp, mlp_.Finish());
  LF_ASSIGN_OR_RETURN(const low_rank::InputMoments activated, activated_.Finish());
  LF_ASSIGN_OR_RETURN(const low_rank::InputMoments output, mlp_output_.Finish());
  moments.down = {
      .mean = activated.mean, .mean_abs = activated.mean_abs, .output_gram = output.covariance};
  LF_ASSIGN_OR_RETURN(moments.down.mean_square, activated_.MeanSquare());
  moments.down_covariance = activated.covariance;
  if (!kept_.empty()) moments.attention_rows = at::cat(kept_);
  return moments;
}

}  // namespace latentforge::calibrate
