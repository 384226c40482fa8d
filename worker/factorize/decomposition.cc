#include "worker/factorize/decomposition.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::factorize {
namespace {

// Latents quieter than this share of the loudest are not scaled up further.
constexpr double kQuietestLatent = 1e-6;

std::vector<double> ToVector(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU).contiguous();
  const double* data = host.const_data_ptr<double>();
  return std::vector<double>(data, data + host.numel());
}

// Eigenvectors are free in sign; makes the largest entry of each column positive.
at::Tensor FixSigns(const at::Tensor& basis) {
  const at::Tensor index = basis.abs().argmax(0, /*keepdim=*/true);
  const at::Tensor signs = basis.gather(0, index).sign();
  return basis * at::where(signs == 0, at::ones_like(signs), signs);
}

}  // namespace

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
  const auto [values, vectors] = at::linalg_eigh(metric);
  Decomposition result;
  result.weight_ = weight;
  result.basis_ = FixSigns(vectors.flip({1}));
  result.spectrum_ = ToVector(values.flip({0}).clamp_min(0));
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

  double loudest = 0;
  for (int64_t i = 0; i < rank; ++i) loudest = std::max(loudest, std::sqrt(energy_[i]));
  if (loudest == 0) return Factors{down, up.contiguous()};
  std::vector<double> scales(rank);
  for (int64_t i = 0; i < rank; ++i) {
    scales[i] = std::max(std::sqrt(energy_[i]), kQuietestLatent * loudest);
  }
  const at::Tensor scale = at::tensor(scales, up.options());
  return Factors{down / scale.unsqueeze(1), up * scale};
}

absl::StatusOr<std::vector<double>> OutputSpectrum(const at::Tensor& gram) {
  if (!at::isfinite(gram).all().item<bool>()) {
    return absl::InternalError("numerical failure: E[y y^T] is not finite");
  }
  return ToVector(at::linalg_eigvalsh(0.5 * (gram + gram.t())).flip({0}).clamp_min(0));
}

}  // namespace latentforge::factorize
