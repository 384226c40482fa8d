#include "worker/low_rank/rank_regression.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/eigenbasis.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::low_rank {
namespace {

using factorize::CheckFinite;
using factorize::CheckTensor;
using factorize::DescendingEigenbasis;
using factorize::Eigenbasis;

// Eigenvalues of C below this share of the largest are rounding.
constexpr double kSingular = 1e-12;

// Components with less than this share of the first one's effect are rounding too: F V has an
// error of 1e-16 of the first one's root, which must stay small beside the component's own.
constexpr double kSilent = 1e-14;

absl::Status CheckMoments(const RegressionMoments& moments) {
  if (moments.tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("regression: tokens is ", moments.tokens, ", expected at least 1"));
  }
  if (!moments.cross.defined() || moments.cross.dim() != 2 || moments.cross.numel() == 0) {
    return absl::InvalidArgumentError(
        "regression: E[t x^T] is not a non-empty matrix, expected [out, in]");
  }
  const int64_t out = moments.cross.size(0);
  const int64_t in = moments.cross.size(1);
  LF_RETURN_IF_ERROR(CheckTensor(moments.cross, {out, in}, "E[t x^T]"));
  LF_RETURN_IF_ERROR(CheckTensor(moments.input_covariance, {in, in}, "E[x x^T]"));
  LF_RETURN_IF_ERROR(CheckTensor(moments.input_mean, {in}, "E x"));
  LF_RETURN_IF_ERROR(CheckTensor(moments.target_mean, {out}, "E t"));
  LF_RETURN_IF_ERROR(CheckFinite(moments.cross, "E[t x^T]"));
  LF_RETURN_IF_ERROR(CheckFinite(moments.input_covariance, "E[x x^T]"));
  LF_RETURN_IF_ERROR(CheckFinite(moments.input_mean, "E x"));
  LF_RETURN_IF_ERROR(CheckFinite(moments.target_mean, "E t"));
  if (!std::isfinite(moments.target_power)) {
    return absl::InternalError("numerical failure: E|t|^2 is not finite");
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const RegressionOptions& options, int64_t out, int64_t in) {
  if (!std::isfinite(options.damping) || options.damping < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("damping is ", options.damping, ", expected a finite number of at least 0"));
  }
  if (options.prior.defined()) {
    LF_RETURN_IF_ERROR(CheckTensor(options.prior, {out, in}, "the prior"));
    LF_RETURN_IF_ERROR(CheckFinite(options.prior, "the prior"));
  }
  if (options.metric.defined()) {
    const std::vector<int64_t> shape(options.metric.dim() == 1 ? 1 : 2, out);
    LF_RETURN_IF_ERROR(CheckTensor(options.metric, shape, "the metric"));
    LF_RETURN_IF_ERROR(CheckFinite(options.metric, "the metric"));
  }
  return absl::OkStatus();
}

struct FullRankFit {
  at::Tensor map;   // M [out, in]
  at::Tensor root;  // F [out, in]
};

// Of a C that Cholesky's factorisation refuses: with C^+ for C^-1, and the prior where C is 0.
FullRankFit SingularFit(const at::Tensor& c, const at::Tensor& k, const at::Tensor& prior) {
  const auto [values, vectors] = at::linalg_eigh(c);
  const at::Tensor kept = values > kSingular * values.max().clamp_min(0);
  const at::Tensor inverse_roots = at::where(kept, values, 1.0).rsqrt() * kept;
  FullRankFit fit;
  fit.root = at::matmul(k, vectors) * inverse_roots;
  fit.map = at::matmul(fit.root * inverse_roots, vectors.t());
  if (prior.defined()) {
    const at::Tensor outside = vectors * kept.logical_not();
    fit.map = fit.map + at::matmul(at::matmul(prior, outside), outside.t());
  }
  return fit;
}

// Of the damped C [in, in] and K [out, in].
FullRankFit Fit(const at::Tensor& c, const at::Tensor& k, const at::Tensor& prior) {
  const auto [factor, info] = at::linalg_cholesky_ex(c);
  const at::Tensor squares = factor.diagonal().square();
  if (info.item<int64_t>() != 0 ||
      !(squares.min().item<double>() > kSingular * squares.max().item<double>())) {
    return SingularFit(c, k, prior);
  }
  FullRankFit fit;
  fit.root = at::linalg_solve_triangular(factor.t(), k, /*upper=*/true, /*left=*/false);
  fit.map = at::linalg_solve_triangular(factor, fit.root, /*upper=*/false, /*left=*/false);
  return fit;
}

struct OutputBasis {
  at::Tensor up;  // [out, min(out, in)], G-orthonormal columns
  std::vector<double> spectrum;
};

absl::StatusOr<OutputBasis> BasisOf(at::Tensor root, const at::Tensor& metric) {
  if (root.size(0) <= root.size(1)) {
    const at::Tensor gram = at::matmul(root, root.t());
    LF_RETURN_IF_ERROR(CheckFinite(gram, "the covariance of predicted targets"));
    Eigenbasis basis = DescendingEigenbasis(gram);
    if (!metric.defined()) return OutputBasis{basis.vectors, std::move(basis.values)};
    // Any F with this F F^T will do: here a square one.
    root = basis.vectors * at::tensor(basis.values, root.options()).sqrt();
  }
  const at::Tensor gram = at::matmul(root.t(), InMetric(metric, root));
  LF_RETURN_IF_ERROR(CheckFinite(gram, "the covariance of predicted targets"));
  Eigenbasis basis = DescendingEigenbasis(0.5 * (gram + gram.t()));
  const at::Tensor values = at::tensor(basis.values, root.options());
  const at::Tensor kept = values > kSilent * values.max();
  const at::Tensor scales = at::where(kept, values, 1.0).rsqrt() * kept;
  return OutputBasis{at::matmul(root, basis.vectors) * scales, std::move(basis.values)};
}

}  // namespace

at::Tensor InMetric(const at::Tensor& metric, const at::Tensor& a) {
  if (!metric.defined()) return a;
  return metric.dim() == 1 ? metric.unsqueeze(1) * a : at::matmul(metric, a);
}

absl::StatusOr<RankRegression> RankRegression::Solve(const RegressionMoments& moments,
                                                     const RegressionOptions& options) {
  LF_RETURN_IF_ERROR(CheckMoments(moments));
  LF_RETURN_IF_ERROR(CheckOptions(options, moments.cross.size(0), moments.cross.size(1)));
  const at::Tensor& metric = options.metric;
  at::Tensor c = moments.input_covariance.clone();
  at::Tensor k = moments.cross;
  double power = moments.target_power;
  RankRegression result;
  if (options.centred) {
    result.input_mean_ = moments.input_mean;
    result.target_mean_ = moments.target_mean;
    c.addr_(moments.input_mean, moments.input_mean, /*beta=*/1, /*alpha=*/-1);
    k = at::addr(k, moments.target_mean, moments.input_mean, /*beta=*/1, /*alpha=*/-1);
    const at::Tensor mean = moments.target_mean.unsqueeze(1);
    power -= (InMetric(metric, mean) * mean).sum().item<double>();
  }
  const double lambda = options.damping * c.diagonal().mean().item<double>();
  c.diagonal().add_(lambda);
  const at::Tensor damped =
      options.prior.defined() ? at::add(k, options.prior, /*alpha=*/lambda) : k;
  const FullRankFit fit = Fit(c, damped, options.prior);
  c.diagonal().sub_(lambda);

  LF_ASSIGN_OR_RETURN(OutputBasis basis, BasisOf(fit.root, metric));
  const at::Tensor weighted = InMetric(metric, basis.up).t();
  result.up_ = basis.up;
  result.down_ = at::matmul(weighted, fit.map);
  LF_RETURN_IF_ERROR(CheckFinite(result.up_, "the fitted up factor"));
  LF_RETURN_IF_ERROR(CheckFinite(result.down_, "the fitted down factor"));
  result.spectrum_ = std::move(basis.spectrum);
  // E|t - W x - b|_G^2 = E|t - Et|_G^2 - 2 tr(G K W^T) + tr(G W C W^T), a sum over components
  // because up is G-orthonormal.
  const std::vector<double> gains = factorize::ToVector(
      ((2 * at::matmul(weighted, k) - at::matmul(result.down_, c)) * result.down_).sum(1));
  result.losses_ = {std::max(power, 0.0)};
  for (const double gain : gains) {
    power -= gain;
    result.losses_.push_back(std::max(power, 0.0));
  }
  return result;
}

double RankRegression::Loss(int64_t rank) const {
  return losses_[std::clamp<int64_t>(rank, 0, max_rank())];
}

absl::StatusOr<LowRank> RankRegression::At(int64_t rank) const {
  if (rank < 1 || rank > max_rank()) {
    return absl::OutOfRangeError(absl::StrCat(
        "rank is ", rank, ", expected 1 to the smaller side of the map, ", max_rank()));
  }
  LowRank map{.down = down_.narrow(0, 0, rank).clone(),
              .up = up_.narrow(1, 0, rank).contiguous(),
              .bias = {}};
  if (input_mean_.defined()) {
    map.bias = target_mean_ - at::matmul(map.up, at::matmul(map.down, input_mean_));
  }
  return map;
}

}  // namespace latentforge::low_rank
