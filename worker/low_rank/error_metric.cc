#include "worker/low_rank/error_metric.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::low_rank {
namespace {

// What every direction counts at least, as a share of the largest eigenvalue.
constexpr double kLeastShare = 1e-12;
// Rounding moves no eigenvalue of a semidefinite matrix further below 0 than this share.
constexpr double kIndefinite = 1e-9;

at::Tensor Rotated(const at::Tensor& metric, const at::Tensor& q) {
  if (metric.dim() == 1) return q.defined() ? at::matmul(q.t() * metric, q) : at::diag(metric);
  return q.defined() ? at::matmul(at::matmul(q.t(), metric), q) : metric;
}

}  // namespace

absl::StatusOr<ErrorMetric> ErrorMetric::Of(const at::Tensor& metric, int64_t out,
                                            const at::Tensor& q) {
  ErrorMetric result;
  if (!metric.defined()) return result;
  const bool diagonal = metric.dim() == 1;
  LF_RETURN_IF_ERROR(factorize::CheckTensor(
      metric, diagonal ? at::IntArrayRef{out} : at::IntArrayRef{out, out}, "metric"));
  LF_RETURN_IF_ERROR(factorize::CheckFinite(metric, "metric"));
  const at::Tensor rotated = Rotated(metric, q);
  const at::Tensor symmetric = 0.5 * (rotated + rotated.t());
  // Any root will do, and the Cholesky factor costs a tenth of the eigenbasis, which remains for a
  // metric that is singular in fp64.
  if (const auto [factor, info] = at::linalg_cholesky_ex(symmetric); info.item<int64_t>() == 0) {
    const at::Tensor squares = factor.diagonal().square();
    if (squares.min().item<double>() > kLeastShare * squares.max().item<double>()) {
      result.root_ = factor;
      return result;
    }
  }
  const auto [values, vectors] = at::linalg_eigh(symmetric);
  const double smallest = values.min().item<double>();
  const double largest = values.max().item<double>();
  if (!(largest > 0) || smallest < -kIndefinite * largest) {
    return absl::InvalidArgumentError(absl::StrCat("metric has eigenvalues from ", smallest, " to ",
                                                   largest,
                                                   ", expected none below 0 and one above"));
  }
  const at::Tensor roots = values.clamp_min(kLeastShare * largest).sqrt();
  result.root_ = vectors * roots;
  result.inverse_ = vectors / roots;
  return result;
}

at::Tensor ErrorMetric::Weigh(const at::Tensor& m) const {
  return root_.defined() ? at::matmul(root_.t(), m) : m;
}

at::Tensor ErrorMetric::WeighBothSides(const at::Tensor& m) const {
  return root_.defined() ? at::matmul(at::matmul(root_.t(), m), root_) : m;
}

at::Tensor ErrorMetric::Unweigh(const at::Tensor& m) const {
  if (!root_.defined()) return m;
  if (inverse_.defined()) return at::matmul(inverse_, m);
  return at::linalg_solve_triangular(root_.t(), m, /*upper=*/true);
}

at::Tensor ErrorMetric::Root(const at::Tensor& m) const {
  return root_.defined() ? at::matmul(root_, m) : m;
}

}  // namespace latentforge::low_rank
