#include "worker/low_rank/rope_metric.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::low_rank {
namespace {

using factorize::CheckFinite;
using factorize::CheckTensor;

// Below this |x|, x - sin x is summed as its series, whose terms fall fast enough that these many
// reach rounding: 1 / 21! < 1e-19.
constexpr double kSeriesBelow = 1;
constexpr int kSeriesTerms = 10;

// x - sin x without the cancellation of small x.
double SineGap(double x) {
  if (std::abs(x) >= kSeriesBelow) return x - std::sin(x);
  double term = x;
  double sum = 0;
  for (int k = 1; k <= kSeriesTerms; ++k) {
    term *= -x * x / (2 * k * (2 * k + 1));
    sum -= term;
  }
  return sum;
}

absl::Status CheckFrequencies(const at::Tensor& frequencies) {
  const int64_t pairs = frequencies.defined() && frequencies.dim() == 1 ? frequencies.size(0) : 0;
  LF_RETURN_IF_ERROR(CheckTensor(frequencies, {pairs}, "RoPE frequencies"));
  if (pairs == 0) return absl::InvalidArgumentError("RoPE frequencies are empty, expected [d/2]");
  return CheckFinite(frequencies, "RoPE frequencies");
}

// The mean over lags, for phi of differences and of sums.
at::Tensor Average(const at::Tensor& moments, const at::Tensor& difference, const at::Tensor& sum) {
  const int64_t half = difference.size(0);
  const auto block = [&](int64_t row, int64_t column) {
    return moments.narrow(-2, row * half, half).narrow(-1, column * half, half);
  };
  const at::Tensor uu = block(0, 0);
  const at::Tensor uv = block(0, 1);
  const at::Tensor vu = block(1, 0);
  const at::Tensor vv = block(1, 1);
  const at::Tensor h = at::complex(uu + vv, vu - uv) * difference;
  const at::Tensor p = at::complex(uu - vv, vu + uv) * sum;
  const at::Tensor added = 0.5 * (h + p);
  const at::Tensor subtracted = 0.5 * (h - p);
  return at::cat({at::cat({at::real(added), -at::imag(subtracted)}, -1),
                  at::cat({at::imag(added), at::real(subtracted)}, -1)},
                 -2);
}

}  // namespace

// Re by Fejer's kernel, sum_{|D|<L} (L - |D|) e^{i omega D} = (sin(L omega / 2) / sin(omega /
// 2))^2; Im from sum_D (L - D) sin(omega D) = (L sin omega - sin(L omega)) / (2 sin(omega / 2))^2.
std::complex<double> CausalPhi(double omega, int64_t length) {
  const double turned = std::remainder(omega, 2 * std::numbers::pi);
  const double sine = std::sin(turned / 2);
  if (sine * sine == 0) return 1;
  const auto count = double(length);
  const double kernel = std::sin(count * turned / 2) / sine;
  const double sines = (SineGap(count * turned) - count * SineGap(turned)) / (4 * sine * sine);
  return std::complex<double>((count + kernel * kernel) / 2, -sines) / (count * (count + 1) / 2);
}

absl::StatusOr<RopeMetric> RopeMetric::FromLagWeights(const at::Tensor& frequencies,
                                                      const at::Tensor& lag_weights) {
  LF_RETURN_IF_ERROR(CheckFrequencies(frequencies));
  const int64_t lags = lag_weights.defined() && lag_weights.dim() == 1 ? lag_weights.size(0) : 0;
  LF_RETURN_IF_ERROR(CheckTensor(lag_weights, {lags}, "lag weights"));
  LF_RETURN_IF_ERROR(CheckFinite(lag_weights, "lag weights"));
  const double total = lag_weights.sum().item<double>();
  if (!(total > 0) || lag_weights.min().item<double>() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("lag weights sum to ", total, ", expected none below 0 and a positive sum"));
  }
  const at::Tensor lag = at::arange(lags, frequencies.options());
  const at::Tensor angles = -at::outer(frequencies, lag);
  const at::Tensor turns = at::polar(at::ones_like(angles), angles);  // e^{-i theta_j D}
  const at::Tensor weighted = turns * (lag_weights / total);
  return RopeMetric(at::matmul(weighted, turns.conj().t()), at::matmul(weighted, turns.t()));
}

absl::StatusOr<RopeMetric> RopeMetric::Causal(const at::Tensor& frequencies, int64_t length) {
  LF_RETURN_IF_ERROR(CheckFrequencies(frequencies));
  if (length < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("length of causal sequences is ", length, ", expected at least 1"));
  }
  const int64_t half = frequencies.size(0);
  const at::Tensor theta = frequencies.to(at::kCPU).contiguous();
  const double* angle = theta.const_data_ptr<double>();
  const at::Tensor difference = at::empty({half, half}, at::kComplexDouble);
  const at::Tensor sum = at::empty({half, half}, at::kComplexDouble);
  auto* differences = difference.mutable_data_ptr<c10::complex<double>>();
  auto* sums = sum.mutable_data_ptr<c10::complex<double>>();
  for (int64_t j = 0; j < half; ++j) {
    for (int64_t k = 0; k < half; ++k) {
      differences[j * half + k] = CausalPhi(angle[j] - angle[k], length);
      sums[j * half + k] = CausalPhi(angle[j] + angle[k], length);
    }
  }
  return RopeMetric(difference.to(frequencies.device()), sum.to(frequencies.device()));
}

at::Tensor RopeMetric::ForQueries(const at::Tensor& key_moments) const {
  return Average(key_moments, difference_, sum_);
}

at::Tensor RopeMetric::ForKeys(const at::Tensor& query_moments) const {
  return Average(query_moments, difference_.conj(), sum_.conj());
}

}  // namespace latentforge::low_rank
