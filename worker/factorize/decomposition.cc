#include "worker/factorize/decomposition.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/eigenbasis.h"

namespace latentforge::factorize {

absl::StatusOr<Decomposition> Decomposition::Compute(const at::Tensor& weight,
                                                     const InputStatistics& input,
                                                     const OutputStatistics& output,
                                                     const PreconditionerOptions& options) {
  LF_ASSIGN_OR_RETURN(const at::Tensor metric, MetricGram(weight, input, output, options));
  const int64_t m = weight.size(0);
  if (!output.gram.defined() || output.gram.sizes() != at::IntArrayRef({m, m})) {
    return absl::InvalidArgumentError(
        absl::StrCat("statistics lack gram of shape [", m, ", ", m, "]"));
  }
  if (!at::isfinite(output.gram).all().item<bool>()) {
    return absl::InternalError("numerical failure: E[y y^T] is not finite");
  }
  Eigenbasis basis = DescendingEigenbasis(metric);
  Decomposition result;
  result.weight_ = weight;
  result.basis_ = std::move(basis.vectors);
  result.spectrum_ = std::move(basis.values);
  result.energy_ =
      ToVector((at::matmul(output.gram, result.basis_) * result.basis_).sum(0).clamp_min(0));
  return result;
}

double Decomposition::RelativeError(int64_t rank) const {
  const int64_t kept = std::clamp<int64_t>(rank, 0, width());
  const double total = std::accumulate(energy_.begin(), energy_.end(), 0.0);
  const double lost = std::accumulate(energy_.begin() + kept, energy_.end(), 0.0);
  return total > 0 ? std::sqrt(lost / total) : 0;
}

absl::StatusOr<Factors> Decomposition::FactorsOf(int64_t rank, Gauge gauge) const {
  if (rank < 1 || rank > width()) {
    return absl::OutOfRangeError(
        absl::StrCat("rank is ", rank, ", expected 1 to the projection's width ", width()));
  }
  const at::Tensor up = basis_.narrow(1, 0, rank);
  const at::Tensor down = at::matmul(up.t(), weight_);
  if (gauge == Gauge::kOrthonormal) return Factors{down, up.contiguous()};

  const at::Tensor scale = LatentScales(energy_, rank, up);
  return Factors{down / scale.unsqueeze(1), up * scale};
}

absl::StatusOr<std::vector<double>> OutputSpectrum(const at::Tensor& gram) {
  if (!at::isfinite(gram).all().item<bool>()) {
    return absl::InternalError("numerical failure: E[y y^T] is not finite");
  }
  return ToVector(at::linalg_eigvalsh(0.5 * (gram + gram.t())).flip({0}).clamp_min(0));
}

}  // namespace latentforge::factorize
