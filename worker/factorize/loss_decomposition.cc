#include "worker/factorize/loss_decomposition.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/eigenbasis.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::factorize {
namespace {

// Eigenvalues of G below this share of the largest are rounding.
constexpr double kSmallestEigenvalue = 1e-12;

// A metric below this has no eigenvalue whose inverse fp64 could hold.
constexpr double kSmallestMetric = std::numeric_limits<double>::min() / kSmallestEigenvalue;

// Any root of G gives the same factors: with G = R R^T, the eigenvectors of R^T y differ from those
// of M y by the rotation R^-1 M. The Cholesky factor costs a tenth of the symmetric root, which
// remains for a G that is singular in fp64.
struct Metric {
  at::Tensor root;      // R, lower triangular or symmetric; undefined when G = I
  at::Tensor inverse;   // R^-1 of the symmetric root; undefined for the triangular one
  bool silent = false;  // G = 0: no choice costs anything, and G = I stands in

  // R U.
  at::Tensor Encoder(const at::Tensor& u) const { return root.defined() ? at::matmul(root, u) : u; }
  // R^-T U.
  at::Tensor Decoder(const at::Tensor& u) const {
    if (!root.defined()) return u;
    if (inverse.defined()) return at::matmul(inverse, u);
    return at::linalg_solve_triangular(root.t(), u, /*upper=*/true);
  }
};

absl::Status CheckOptions(const LossMetricOptions& options) {
  if (!(options.sink_weight >= 0 && options.sink_weight <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("sink weight is ", options.sink_weight, ", expected 0 to 1"));
  }
  if (!std::isfinite(options.ridge) || options.ridge < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("ridge is ", options.ridge, ", expected a finite number of at least 0"));
  }
  return absl::OkStatus();
}

absl::Status CheckWeight(const at::Tensor& weight) {
  if (!weight.defined() || weight.dim() != 2 || weight.scalar_type() != at::kDouble ||
      weight.numel() == 0 || weight.size(0) % 2 != 0) {
    return absl::InvalidArgumentError(
        "weight is not a non-empty [2m, D] matrix of Double, the rows of W_K, then of W_V");
  }
  return CheckFinite(weight, "weight");
}

at::Tensor Symmetric(const at::Tensor& matrix) { return 0.5 * (matrix + matrix.t()); }

at::Tensor Block(const at::Tensor& matrix, int64_t start, int64_t width) {
  return matrix.narrow(0, start, width).narrow(1, start, width);
}

// `halves` is 2 where G covers keys and values.
absl::StatusOr<Metric> MetricOf(const at::Tensor& fisher, int64_t halves, double ridge) {
  at::Tensor damped = Symmetric(fisher);
  const int64_t m = damped.size(0) / halves;
  for (int64_t half = 0; half < halves; ++half) {
    at::Tensor diagonal = damped.diagonal().narrow(0, half * m, m);
    diagonal.add_(ridge * diagonal.mean().item<double>());
  }
  LF_RETURN_IF_ERROR(CheckFinite(damped, "E[g g^T] with its ridge"));
  const auto [factor, info] = at::linalg_cholesky_ex(damped);
  if (info.item<int64_t>() == 0) {
    const at::Tensor squares = factor.diagonal().square();
    const double largest = squares.max().item<double>();
    const double smallest = squares.min().item<double>();
    if (largest > kSmallestMetric && smallest > kSmallestEigenvalue * largest) {
      return Metric{.root = factor, .inverse = {}};
    }
  }
  const auto [values, vectors] = at::linalg_eigh(damped);
  const double largest = values.max().item<double>();
  if (!(largest > kSmallestMetric)) return Metric{.root = {}, .inverse = {}, .silent = true};
  const at::Tensor roots = values.clamp_min(kSmallestEigenvalue * largest).sqrt();
  return Metric{.root = at::matmul(vectors * roots, vectors.t()),
                .inverse = at::matmul(vectors / roots, vectors.t())};
}

// What is decomposed: M W C W^T M of one latent.
struct Problem {
  Metric metric;
  at::Tensor output;  // E[y y^T] over all positions
  at::Tensor phi;
};

absl::StatusOr<Problem> Pose(const LossStatistics& statistics, LatentPart part,
                             const LossMetricOptions& options) {
  const int64_t n = statistics.output.size(0);
  const bool joint = part == LatentPart::kJoint;
  const int64_t width = joint ? n : n / 2;
  const int64_t start = part == LatentPart::kValue ? n / 2 : 0;
  const double alpha = options.sink_weight;
  Problem problem;
  problem.output = Block(statistics.output, start, width);
  at::Tensor phi =
      (1 - alpha) * problem.output + alpha * Block(statistics.output_first, start, width);
  if (options.fisher) {
    const at::Tensor fisher = Block(statistics.fisher, start, width);
    LF_ASSIGN_OR_RETURN(problem.metric, MetricOf(fisher, joint ? 2 : 1, options.ridge));
  }
  const at::Tensor& root = problem.metric.root;
  if (root.defined()) phi = at::matmul(at::matmul(root.t(), phi), root);
  LF_RETURN_IF_ERROR(CheckFinite(phi, "the weighted E[y y^T]"));
  problem.phi = Symmetric(phi);
  return problem;
}

}  // namespace

absl::StatusOr<std::vector<double>> LossSpectrum(const LossStatistics& statistics, LatentPart part,
                                                 const LossMetricOptions& options) {
  LF_RETURN_IF_ERROR(CheckOptions(options));
  const int64_t n = statistics.output.defined() ? statistics.output.size(0) : 0;
  LF_RETURN_IF_ERROR(CheckLossStatistics(statistics, n));
  LF_ASSIGN_OR_RETURN(const Problem problem, Pose(statistics, part, options));
  std::vector<double> spectrum = DescendingEigenvalues(problem.phi);
  if (problem.metric.silent) std::fill(spectrum.begin(), spectrum.end(), 0.0);
  return spectrum;
}

absl::StatusOr<LossDecomposition> LossDecomposition::Compute(const at::Tensor& weight,
                                                             const LossStatistics& statistics,
                                                             LatentPart part,
                                                             const LossMetricOptions& options) {
  LF_RETURN_IF_ERROR(CheckOptions(options));
  LF_RETURN_IF_ERROR(CheckWeight(weight));
  LF_RETURN_IF_ERROR(CheckLossStatistics(statistics, weight.size(0)));
  LF_ASSIGN_OR_RETURN(const Problem problem, Pose(statistics, part, options));
  Eigenbasis basis = DescendingEigenbasis(problem.phi);
  if (problem.metric.silent) std::fill(basis.values.begin(), basis.values.end(), 0.0);

  const int64_t width = problem.output.size(0);
  LossDecomposition result;
  result.part_ = part;
  result.weight_ = weight.narrow(0, part == LatentPart::kValue ? width : 0, width);
  result.output_ = problem.output;
  result.spectrum_ = std::move(basis.values);
  result.encoder_ = problem.metric.Encoder(basis.vectors);
  result.decoder_ = problem.metric.Decoder(basis.vectors);
  result.energy_ =
      ToVector((at::matmul(result.output_, result.encoder_) * result.encoder_).sum(0).clamp_min(0));
  return result;
}

double LossDecomposition::PredictedLoss(int64_t rank) const {
  const int64_t kept = std::clamp<int64_t>(rank, 0, width());
  // From the smallest up, for accuracy.
  return 0.5 * std::accumulate(spectrum_.rbegin(), spectrum_.rend() - kept, 0.0);
}

double LossDecomposition::RelativeKeyError(int64_t rank) const {
  return RelativeError(rank, LatentPart::kKey);
}

double LossDecomposition::RelativeValueError(int64_t rank) const {
  return RelativeError(rank, LatentPart::kValue);
}

double LossDecomposition::RelativeError(int64_t rank, LatentPart half) const {
  if (part_ != LatentPart::kJoint && part_ != half) return 0;
  const bool joint = part_ == LatentPart::kJoint;
  const int64_t rows = joint ? width() / 2 : width();
  const int64_t start = joint && half == LatentPart::kValue ? rows : 0;
  const double total = Block(output_, start, rows).trace().item<double>();
  const int64_t kept = std::clamp<int64_t>(rank, 0, width());
  if (!(total > 0) || kept == width()) return 0;
  // y - y' = sum_{i>r} M^-1 u_i (M u_i)^T y, as a sum of what is lost, without cancellation.
  const at::Tensor lost =
      at::matmul(decoder_.narrow(0, start, rows).narrow(1, kept, width() - kept),
                 encoder_.narrow(1, kept, width() - kept).t());
  const double error = (at::matmul(lost, output_) * lost).sum().item<double>();
  return std::sqrt(std::max(error, 0.0) / total);
}

absl::StatusOr<Factors> LossDecomposition::FactorsOf(int64_t rank, Gauge gauge) const {
  if (rank < 1 || rank > width()) {
    return absl::OutOfRangeError(
        absl::StrCat("rank is ", rank, ", expected 1 to the latent's full width ", width()));
  }
  const at::Tensor down = at::matmul(encoder_.narrow(1, 0, rank).t(), weight_);
  const at::Tensor up = decoder_.narrow(1, 0, rank);
  if (gauge == Gauge::kOrthonormal) return Factors{down, up.contiguous()};
  const at::Tensor scale = LatentScales(energy_, rank, up);
  return Factors{down / scale.unsqueeze(1), up * scale};
}

}  // namespace latentforge::factorize
