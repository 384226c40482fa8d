#include "worker/low_rank/joint_moments.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::low_rank {

using factorize::CheckTensor;

absl::Status CheckLinear(const Linear& linear, int64_t out, int64_t in, absl::string_view name) {
  const std::string weight = absl::StrCat(name, " weight");
  LF_RETURN_IF_ERROR(CheckTensor(linear.weight, {out, in}, weight));
  LF_RETURN_IF_ERROR(factorize::CheckFinite(linear.weight, weight));
  if (!linear.bias.defined()) return absl::OkStatus();
  const std::string bias = absl::StrCat(name, " bias");
  LF_RETURN_IF_ERROR(CheckTensor(linear.bias, {out}, bias));
  return factorize::CheckFinite(linear.bias, bias);
}

absl::Status CheckStandIn(const LowRank& factors, int64_t out, int64_t in, absl::string_view name) {
  const int64_t rank = Columns(factors.up);
  LF_RETURN_IF_ERROR(CheckTensor(factors.down, {rank, in}, absl::StrCat("down of the ", name)));
  LF_RETURN_IF_ERROR(CheckTensor(factors.up, {out, rank}, absl::StrCat("up of the ", name)));
  if (!factors.bias.defined()) return absl::OkStatus();
  return CheckTensor(factors.bias, {out}, absl::StrCat("bias of the ", name));
}

absl::Status CheckFinite(const LowRank& factors, absl::string_view name) {
  LF_RETURN_IF_ERROR(factorize::CheckFinite(factors.down, absl::StrCat("down of the ", name)));
  return factorize::CheckFinite(factors.up, absl::StrCat("up of the ", name));
}

absl::Status CheckHeads(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  if (kv_heads >= 1 && heads >= kv_heads && heads % kv_heads == 0 && head_dim >= 1) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("layer has ", heads, " heads of ", head_dim, " channels and ", kv_heads,
                   " key and value heads, expected these to divide heads"));
}

int64_t Rows(const at::Tensor& matrix) {
  return matrix.defined() && matrix.dim() == 2 ? matrix.size(0) : 0;
}

int64_t Columns(const at::Tensor& matrix) {
  return matrix.defined() && matrix.dim() == 2 ? matrix.size(1) : 0;
}

absl::Status CheckMoments(const InputMoments& moments, int64_t in, bool needs_mean) {
  LF_RETURN_IF_ERROR(CheckTensor(moments.covariance, {in, in}, "covariance"));
  LF_RETURN_IF_ERROR(factorize::CheckFinite(moments.covariance, "covariance"));
  if (!needs_mean) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckTensor(moments.mean, {in}, "mean"));
  return factorize::CheckFinite(moments.mean, "mean");
}

absl::Status CheckDamping(double damping) {
  if (std::isfinite(damping) && damping >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("damping is ", damping, ", expected a finite number of at least 0"));
}

at::Tensor DampedCovariance(const InputMoments& moments, bool centred, double damping) {
  const at::Tensor& c = moments.covariance;
  at::Tensor result = 0.5 * (c + c.t());
  if (centred) result = result - at::outer(moments.mean, moments.mean);
  result.diagonal().add_(damping * c.diagonal().mean().item<double>());
  return result;
}

at::Tensor MeanOutput(const Linear& linear, const at::Tensor& mean) {
  const at::Tensor output = at::mv(linear.weight, mean);
  return linear.bias.defined() ? output + linear.bias : output;
}

at::Tensor MeanKeepingBias(const Linear& linear, const LowRank& stand_in, const at::Tensor& mean) {
  return MeanOutput(linear, mean) - at::mv(stand_in.up, at::mv(stand_in.down, mean));
}

}  // namespace latentforge::low_rank
