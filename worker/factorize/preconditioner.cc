#include "worker/factorize/preconditioner.h"

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::factorize {
namespace {

constexpr std::array<std::pair<Preconditioner, const char*>, 6> kNames = {{
    {Preconditioner::kIdentity, "identity"},
    {Preconditioner::kDiagonalL1, "diagonal-l1"},
    {Preconditioner::kDiagonalL2, "diagonal-l2"},
    {Preconditioner::kDiagonalHessian, "diagonal-hessian"},
    {Preconditioner::kCovariance, "covariance"},
    {Preconditioner::kRootCovariance, "root-covariance"},
}};

absl::Status CheckOptions(const PreconditionerOptions& options) {
  if (!std::isfinite(options.damping) || options.damping < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("damping is ", options.damping, ", expected a finite number of at least 0"));
  }
  if (!std::isfinite(options.alpha) || options.alpha < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("alpha is ", options.alpha, ", expected a finite number of at least 0"));
  }
  return absl::OkStatus();
}

// W diag(squares) W^T.
at::Tensor DiagonalGram(const at::Tensor& weight, const at::Tensor& squares) {
  return at::matmul(weight * squares, weight.t());
}

}  // namespace

absl::string_view PreconditionerName(Preconditioner preconditioner) {
  for (const auto& [kind, name] : kNames) {
    if (kind == preconditioner) return name;
  }
  return "unknown";
}

std::optional<Preconditioner> PreconditionerFromName(absl::string_view name) {
  for (const auto& [kind, known] : kNames) {
    if (name == known) return kind;
  }
  return std::nullopt;
}

StatisticsNeeds NeedsOf(Preconditioner preconditioner) {
  return {.cross = preconditioner == Preconditioner::kCovariance,
          .covariance = preconditioner == Preconditioner::kDiagonalHessian};
}

absl::StatusOr<at::Tensor> InverseDiagonal(const at::Tensor& covariance, double lambda) {
  at::Tensor damped = 0.5 * (covariance + covariance.t());
  damped.diagonal().add_(lambda);
  const auto [factor, info] = at::linalg_cholesky_ex(damped);
  if (info.item<int64_t>() != 0) {
    return absl::InternalError(absl::StrCat(
        "C + lambda I with lambda ", lambda,
        " is not positive definite, so diagonal-hessian has no inverse: raise damping"));
  }
  return at::cholesky_inverse(factor).diagonal();
}

absl::StatusOr<at::Tensor> MetricGram(const at::Tensor& weight, const InputStatistics& input,
                                      const OutputStatistics& output,
                                      const PreconditionerOptions& options) {
  LF_RETURN_IF_ERROR(CheckOptions(options));
  if (!weight.defined() || weight.dim() != 2 || weight.scalar_type() != at::kDouble ||
      weight.numel() == 0) {
    return absl::InvalidArgumentError("weight is not a non-empty [m, D] matrix of Double");
  }
  const int64_t m = weight.size(0);
  const int64_t d = weight.size(1);
  LF_RETURN_IF_ERROR(CheckTensor(input.mean_square, {d}, "mean_square"));
  const double lambda = options.damping * input.mean_square.sum().item<double>() / double(d);

  at::Tensor gram;
  switch (options.kind) {
    case Preconditioner::kIdentity:
      gram = at::matmul(weight, weight.t());
      break;
    case Preconditioner::kDiagonalL1:
      LF_RETURN_IF_ERROR(CheckTensor(input.mean_abs, {d}, "mean_abs"));
      gram = DiagonalGram(weight, input.mean_abs.pow(2 * options.alpha));
      break;
    case Preconditioner::kDiagonalL2:
      gram = DiagonalGram(weight, input.mean_square);
      break;
    case Preconditioner::kDiagonalHessian: {
      LF_RETURN_IF_ERROR(CheckTensor(input.covariance, {d, d}, "covariance"));
      LF_ASSIGN_OR_RETURN(const at::Tensor inverse, InverseDiagonal(input.covariance, lambda));
      gram = DiagonalGram(weight, inverse.reciprocal());
      break;
    }
    case Preconditioner::kCovariance: {
      LF_RETURN_IF_ERROR(CheckTensor(output.cross, {m, d}, "cross"));
      const at::Tensor weighted = output.cross + lambda * weight;
      gram = at::matmul(weighted, weighted.t());
      break;
    }
    case Preconditioner::kRootCovariance:
      LF_RETURN_IF_ERROR(CheckTensor(output.gram, {m, m}, "gram"));
      // W (C + lambda I) W^T without C: the damped Gram identity.
      gram = output.gram + lambda * at::matmul(weight, weight.t());
      break;
  }
  gram = 0.5 * (gram + gram.t());
  if (!at::isfinite(gram).all().item<bool>()) {
    return absl::InternalError(absl::StrCat("numerical failure: W P P^T W^T for preconditioner ",
                                            PreconditionerName(options.kind), " is not finite"));
  }
  return gram;
}

}  // namespace latentforge::factorize
