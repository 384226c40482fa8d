#include "worker/low_rank/local_decomposition.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/eigenbasis.h"
#include "worker/factorize/statistics.h"
#include "worker/factorize/tensor_check.h"
#include "worker/low_rank/error_metric.h"

namespace latentforge::low_rank {

using factorize::CheckFinite;
using factorize::CheckTensor;
using factorize::Eigenbasis;
using factorize::Preconditioner;

// A map whose outputs were rotated into its range, so that out <= in: k = min(out, in).
struct LocalDecomposition::Problem {
  at::Tensor bias;                     // [out]; undefined when there is none
  at::Tensor mean;                     // [in]
  at::Tensor basis;                    // Q [out, k], orthonormal columns; undefined when Q = I
  at::Tensor weight;                   // T [k, in]: W = Q T
  ErrorMetric metric;                  // Q^T G Q
  factorize::InputStatistics input;    // of C, or of C0 where centred
  factorize::OutputStatistics output;  // T C T^T and T C, or of C0
};

namespace {

absl::Status CheckLocalOptions(const LocalOptions& options) {
  for (const auto& [name, value] :
       {std::pair{"damping", options.damping}, std::pair{"alpha", options.alpha}}) {
    if (!std::isfinite(value) || value < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " is ", value, ", expected a finite number of at least 0"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLinear(const Linear& linear) {
  const at::Tensor& weight = linear.weight;
  if (!weight.defined() || weight.dim() != 2 || weight.scalar_type() != at::kDouble ||
      weight.numel() == 0) {
    return absl::InvalidArgumentError("weight is not a non-empty [out, in] matrix of Double");
  }
  LF_RETURN_IF_ERROR(CheckFinite(weight, "weight"));
  if (!linear.bias.defined()) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckTensor(linear.bias, {weight.size(0)}, "bias"));
  return CheckFinite(linear.bias, "bias");
}

// E[a b^T] - E[a] E[b]^T.
at::Tensor Centred(const at::Tensor& moment, const at::Tensor& mean_a, const at::Tensor& mean_b) {
  return moment - at::outer(mean_a, mean_b);
}

// The left singular vectors of M and the squares of its singular values, without M M^T, which
// would lose all directions below 1e-8 of the first.
Eigenbasis LeftSingularBasis(const at::Tensor& m) {
  const at::Tensor triangle = std::get<1>(at::linalg_qr(m.t(), "r"));  // M^T = Q triangle
  const auto [u, s, v] = at::linalg_svd(triangle.t(), /*full_matrices=*/false);
  return {.values = factorize::ToVector(s.square()), .vectors = u};
}

// U and S^2 of R^T T P.
absl::StatusOr<Eigenbasis> WeightedBasis(const at::Tensor& weight,
                                         const factorize::InputStatistics& input,
                                         const factorize::OutputStatistics& output,
                                         const ErrorMetric& metric, const LocalOptions& options) {
  const int64_t in = weight.size(1);
  const double lambda = options.damping * input.mean_square.sum().item<double>() / double(in);
  if (options.preconditioner == Preconditioner::kCovariance) {
    LF_RETURN_IF_ERROR(CheckTensor(input.covariance, {in, in}, "covariance"));
    const at::Tensor weighted = metric.Weigh(output.cross + lambda * weight);
    LF_RETURN_IF_ERROR(CheckFinite(weighted, "R^T W P"));
    return LeftSingularBasis(weighted);
  }
  at::Tensor gram;  // T P P^T T^T
  if (options.preconditioner == Preconditioner::kDiagonalHessian && options.literal_hessian) {
    LF_RETURN_IF_ERROR(CheckTensor(input.covariance, {in, in}, "covariance"));
    LF_ASSIGN_OR_RETURN(const at::Tensor squares,
                        factorize::InverseDiagonal(input.covariance, lambda));
    gram = at::matmul(weight * squares, weight.t());
  } else {
    LF_ASSIGN_OR_RETURN(gram, factorize::MetricGram(weight, input, output,
                                                    {.kind = options.preconditioner,
                                                     .damping = options.damping,
                                                     .alpha = options.alpha}));
  }
  gram = metric.WeighBothSides(gram);
  LF_RETURN_IF_ERROR(CheckFinite(gram, "R^T W P P^T W^T R"));
  return factorize::DescendingEigenbasis(0.5 * (gram + gram.t()));
}

// +1 or -1 for each column, so that its largest entry becomes positive.
at::Tensor ColumnSigns(const at::Tensor& matrix) {
  const at::Tensor largest = matrix.gather(0, matrix.abs().argmax(0, /*keepdim=*/true));
  return at::where(largest < 0, -at::ones_like(largest), at::ones_like(largest)).squeeze(0);
}

}  // namespace

absl::StatusOr<LocalDecomposition> LocalDecomposition::Compute(const Linear& linear,
                                                               const InputMoments& moments,
                                                               const LocalOptions& options,
                                                               const at::Tensor& metric) {
  LF_RETURN_IF_ERROR(CheckLinear(linear));
  const int64_t out = linear.weight.size(0);
  const int64_t in = linear.weight.size(1);
  LF_RETURN_IF_ERROR(CheckTensor(moments.mean, {in}, "mean"));
  LF_RETURN_IF_ERROR(CheckTensor(moments.covariance, {in, in}, "covariance"));
  LF_RETURN_IF_ERROR(CheckFinite(moments.covariance, "covariance"));
  Problem problem{.bias = linear.bias, .mean = moments.mean, .weight = linear.weight};
  if (out > in) std::tie(problem.basis, problem.weight) = at::linalg_qr(linear.weight);
  LF_ASSIGN_OR_RETURN(problem.metric, ErrorMetric::Of(metric, out, problem.basis));
  problem.input = {.mean_abs = moments.mean_abs,
                   .mean_square = moments.covariance.diagonal(),
                   .covariance = moments.covariance};
  problem.output.cross = at::matmul(problem.weight, moments.covariance);
  problem.output.gram = at::matmul(problem.output.cross, problem.weight.t());
  return Solve(std::move(problem), options);
}

absl::StatusOr<LocalDecomposition> LocalDecomposition::Compute(const Linear& linear,
                                                               const WideMoments& moments,
                                                               const LocalOptions& options,
                                                               const at::Tensor& metric) {
  LF_RETURN_IF_ERROR(CheckLinear(linear));
  const int64_t out = linear.weight.size(0);
  const int64_t in = linear.weight.size(1);
  if (out > in) {
    return absl::InvalidArgumentError(absl::StrCat("map is [", out, ", ", in,
                                                   "] with its outputs' Gram alone, expected at "
                                                   "most as many outputs as inputs"));
  }
  LF_RETURN_IF_ERROR(CheckTensor(moments.mean, {in}, "mean"));
  LF_RETURN_IF_ERROR(CheckTensor(moments.mean_square, {in}, "mean_square"));
  LF_RETURN_IF_ERROR(CheckTensor(moments.output_gram, {out, out}, "output_gram"));
  LF_RETURN_IF_ERROR(CheckFinite(moments.output_gram, "output_gram"));
  Problem problem{.bias = linear.bias, .mean = moments.mean, .weight = linear.weight};
  LF_ASSIGN_OR_RETURN(problem.metric, ErrorMetric::Of(metric, out, {}));
  problem.input = {.mean_abs = moments.mean_abs, .mean_square = moments.mean_square};
  problem.output.gram = moments.output_gram;
  return Solve(std::move(problem), options);
}

absl::StatusOr<LocalDecomposition> LocalDecomposition::Solve(Problem problem,
                                                             const LocalOptions& options) {
  LF_RETURN_IF_ERROR(CheckLocalOptions(options));
  LF_RETURN_IF_ERROR(CheckFinite(problem.mean, "mean"));
  const at::Tensor mean = problem.mean;
  const at::Tensor output_mean = at::matmul(problem.weight, mean);
  const at::Tensor centred_gram = Centred(problem.output.gram, output_mean, output_mean);
  // A new bias removes the mean error, and only the spread of the outputs is left to lose.
  const at::Tensor loss_gram = options.update_bias ? centred_gram : problem.output.gram;
  LF_RETURN_IF_ERROR(CheckFinite(loss_gram, "E[y y^T]"));
  if (options.centred) {
    problem.input.mean_square = problem.input.mean_square - mean.square();
    problem.output.gram = centred_gram;
    if (problem.input.covariance.defined()) {
      problem.input.covariance = Centred(problem.input.covariance, mean, mean);
      problem.output.cross = Centred(problem.output.cross, output_mean, mean);
    }
  }
  LF_ASSIGN_OR_RETURN(
      const Eigenbasis basis,
      WeightedBasis(problem.weight, problem.input, problem.output, problem.metric, options));
  at::Tensor up = problem.metric.Unweigh(basis.vectors);  // R^-T U
  if (problem.basis.defined()) up = at::matmul(problem.basis, up);
  const at::Tensor signs = ColumnSigns(up);
  const at::Tensor encoder = problem.metric.Root(basis.vectors) * signs;  // R U: c = (R U)^T y

  LocalDecomposition result;
  result.up_ = up * signs;
  result.down_ = at::matmul(encoder.t(), problem.weight);
  result.bias_ = problem.bias;
  if (options.update_bias) {
    result.latent_mean_ = at::matmul(encoder.t(), output_mean);
    result.output_mean_ =
        problem.basis.defined() ? at::matmul(problem.basis, output_mean) : output_mean;
  }
  result.spectrum_ = basis.values;
  result.energies_ =
      factorize::ToVector((at::matmul(loss_gram, encoder) * encoder).sum(0).clamp_min(0));
  LF_RETURN_IF_ERROR(CheckFinite(result.up_, "up"));
  LF_RETURN_IF_ERROR(CheckFinite(result.down_, "down"));
  return result;
}

std::vector<double> LocalDecomposition::SingularValues() const {
  std::vector<double> values;
  values.reserve(spectrum_.size());
  for (const double square : spectrum_) values.push_back(std::sqrt(square));
  return values;
}

double LocalDecomposition::Loss(int64_t rank) const {
  const int64_t kept = std::clamp<int64_t>(rank, 0, width());
  // From the smallest up, for accuracy.
  return std::accumulate(energies_.rbegin(), energies_.rend() - kept, 0.0);
}

absl::StatusOr<LowRank> LocalDecomposition::At(int64_t rank) const {
  if (rank < 1 || rank > width()) {
    return absl::OutOfRangeError(
        absl::StrCat("rank is ", rank, ", expected 1 to the map's width ", width()));
  }
  LowRank low{.down = down_.narrow(0, 0, rank).clone(),
              .up = up_.narrow(1, 0, rank).clone(at::MemoryFormat::Contiguous),
              .bias = bias_};
  if (output_mean_.defined()) {
    // b + (W - W') mean.
    const at::Tensor shift = output_mean_ - at::matmul(low.up, latent_mean_.narrow(0, 0, rank));
    low.bias = bias_.defined() ? bias_ + shift : shift;
  }
  return low;
}

}  // namespace latentforge::low_rank
