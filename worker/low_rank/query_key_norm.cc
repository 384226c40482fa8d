#include "worker/low_rank/query_key_norm.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"
#include "worker/low_rank/joint_moments.h"
#include "worker/low_rank/tucker.h"

namespace latentforge::low_rank {
namespace {

absl::Status CheckFiniteTensor(const at::Tensor& tensor, at::IntArrayRef shape,
                               absl::string_view name) {
  LF_RETURN_IF_ERROR(factorize::CheckTensor(tensor, shape, name));
  return factorize::CheckFinite(tensor, name);
}

absl::Status CheckNormedHeads(const NormedHeads& moments, int64_t heads, int64_t head_dim,
                              absl::string_view name) {
  LF_RETURN_IF_ERROR(CheckFiniteTensor(moments.second, {heads, head_dim, head_dim},
                                       absl::StrCat("second moments of normalised ", name)));
  return CheckFiniteTensor(moments.loudness, {heads}, absl::StrCat("loudness of ", name));
}

// omega_j diag(gain) metric_j diag(gain).
at::Tensor Scaled(const at::Tensor& metrics, const at::Tensor& gain, const at::Tensor& loudness) {
  return metrics * at::outer(gain, gain) * loudness.unsqueeze(1).unsqueeze(2);
}

}  // namespace

absl::StatusOr<NormedHeads> MeasureNormedHeads(const Linear& projection, const at::Tensor& gain,
                                               double epsilon, const at::Tensor& x) {
  const int64_t d = gain.defined() && gain.dim() == 1 ? gain.size(0) : 0;
  LF_RETURN_IF_ERROR(CheckFiniteTensor(gain, {d}, "gain of a head's norm"));
  const int64_t in = Rows(x);
  const int64_t tokens = Columns(x);
  LF_RETURN_IF_ERROR(CheckFiniteTensor(x, {in, tokens}, "inputs x"));
  const int64_t out = Rows(projection.weight);
  LF_RETURN_IF_ERROR(CheckLinear(projection, out, in, "projection"));
  if (d == 0 || out == 0 || out % d != 0 || tokens == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("projection has ", out, " outputs, its heads' gain ", d, " and x ", tokens,
                     " tokens, expected whole heads and at least one token"));
  }
  at::Tensor y = at::matmul(projection.weight, x);
  if (projection.bias.defined()) y = y + projection.bias.unsqueeze(1);
  const at::Tensor heads = y.reshape({out / d, d, tokens});
  const at::Tensor inverse_square =
      (heads.square().mean(1, /*keepdim=*/true) + epsilon).reciprocal();
  const at::Tensor normed = heads * inverse_square.sqrt() * gain.unsqueeze(1);
  const at::Tensor norms = x.square().sum(0);
  NormedHeads moments{.second = at::bmm(normed, normed.transpose(1, 2)) / double(tokens),
                      .loudness = (inverse_square.squeeze(1) * norms).sum(1) / norms.sum()};
  LF_RETURN_IF_ERROR(factorize::CheckFinite(moments.second, "E[y^ y^^T] of normalised heads"));
  LF_RETURN_IF_ERROR(factorize::CheckFinite(moments.loudness, "loudness of normalised heads"));
  return moments;
}

absl::Status CheckQueryKeyNorm(const QueryKeyNorm& norm, int64_t heads, int64_t kv_heads,
                               int64_t head_dim) {
  LF_RETURN_IF_ERROR(CheckFiniteTensor(norm.query_gain, {head_dim}, "gain of the queries' norm"));
  LF_RETURN_IF_ERROR(CheckFiniteTensor(norm.key_gain, {head_dim}, "gain of the keys' norm"));
  LF_RETURN_IF_ERROR(CheckNormedHeads(norm.query, heads, head_dim, "queries"));
  return CheckNormedHeads(norm.key, kv_heads, head_dim, "keys");
}

at::Tensor NormedQueryMetrics(const QueryKeyNorm& norm, const std::optional<RopeMetric>& rope) {
  const TuckerCoupling coupling{.left_mean = {}, .right_mean = {}, .rope = rope};
  return Scaled(LeftMetrics(coupling, norm.query.second.size(0), norm.key.second), norm.query_gain,
                norm.query.loudness);
}

at::Tensor NormedKeyMetrics(const QueryKeyNorm& norm, const std::optional<RopeMetric>& rope) {
  const TuckerCoupling coupling{.left_mean = {}, .right_mean = {}, .rope = rope};
  return Scaled(RightMetrics(coupling, norm.key.second.size(0), norm.query.second), norm.key_gain,
                norm.key.loudness);
}

}  // namespace latentforge::low_rank
