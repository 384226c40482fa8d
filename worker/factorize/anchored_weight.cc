#include "worker/factorize/anchored_weight.h"

#include <ATen/ATen.h>

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::factorize {
namespace {

absl::Status CheckOptions(const AnchorOptions& options) {
  if (!(options.sink_weight >= 0 && options.sink_weight <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("sink weight is ", options.sink_weight, ", expected 0 to 1"));
  }
  if (!std::isfinite(options.damping) || options.damping < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("damping is ", options.damping, ", expected a finite number of at least 0"));
  }
  return absl::OkStatus();
}

absl::Status CheckMoment(const at::Tensor& moment, int64_t d, absl::string_view name) {
  LF_RETURN_IF_ERROR(CheckTensor(moment, {d, d}, name));
  return CheckFinite(moment, name);
}

absl::Status CheckInputs(const at::Tensor& weight, const AnchorMoments& moments) {
  if (!weight.defined() || weight.dim() != 2 || weight.scalar_type() != at::kDouble ||
      weight.numel() == 0) {
    return absl::InvalidArgumentError("weight is not a non-empty [n, D] matrix of Double");
  }
  LF_RETURN_IF_ERROR(CheckFinite(weight, "weight"));
  const int64_t d = weight.size(1);
  LF_RETURN_IF_ERROR(CheckMoment(moments.converted, d, "E[x_c x_c^T]"));
  LF_RETURN_IF_ERROR(CheckMoment(moments.converted_first, d, "E[x_c x_c^T] at position 0"));
  LF_RETURN_IF_ERROR(CheckMoment(moments.cross, d, "E[x_o x_c^T]"));
  return CheckMoment(moments.cross_first, d, "E[x_o x_c^T] at position 0");
}

// M C M^T, symmetric whatever rounding makes of it.
at::Tensor OutputMoment(const at::Tensor& weight, const at::Tensor& moment) {
  const at::Tensor product = at::matmul(at::matmul(weight, moment), weight.t());
  return 0.5 * (product + product.t());
}

}  // namespace

absl::StatusOr<at::Tensor> AnchoredWeight(const at::Tensor& weight, const AnchorMoments& moments,
                                          const AnchorOptions& options) {
  LF_RETURN_IF_ERROR(CheckOptions(options));
  LF_RETURN_IF_ERROR(CheckInputs(weight, moments));
  const double alpha = options.sink_weight;
  at::Tensor converted = ((1 - alpha) * moments.converted).add_(moments.converted_first, alpha);
  const double d = options.damping * converted.diagonal().mean().item<double>();
  converted.diagonal().add_(d);
  // W C_oc without a mixed D x D matrix.
  const at::Tensor target = at::matmul(weight, moments.cross)
                                .mul_(1 - alpha)
                                .add_(at::matmul(weight, moments.cross_first), alpha)
                                .add_(weight, d);
  const auto [factor, info] = at::linalg_cholesky_ex(converted);
  if (info.item<int64_t>() != 0) {
    return absl::InternalError("numerical failure: E[x_c x_c^T] with its damping is singular");
  }
  at::Tensor result = at::cholesky_solve(target.t(), factor).t().contiguous();
  LF_RETURN_IF_ERROR(CheckFinite(result, "the weight fitted to the converted inputs"));
  return result;
}

LossStatistics AnchoredStatistics(const at::Tensor& anchored_weight, const AnchorMoments& moments,
                                  const LossStatistics& original) {
  LossStatistics result = original;
  result.tokens = moments.tokens;
  result.sequences = moments.sequences;
  result.output = OutputMoment(anchored_weight, moments.converted);
  result.output_first = OutputMoment(anchored_weight, moments.converted_first);
  return result;
}

}  // namespace latentforge::factorize
