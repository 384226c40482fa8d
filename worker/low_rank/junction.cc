#include "worker/low_rank/junction.h"

#include <ATen/ATen.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::low_rank {
namespace {

// S, [r], for junctions that divide by it.
absl::StatusOr<at::Tensor> Divisors(const LowRank& factors,
                                    const std::vector<double>& singular_values) {
  const int64_t rank = factors.rank();
  if (static_cast<int64_t>(singular_values.size()) < rank) {
    return absl::InvalidArgumentError(absl::StrCat("there are ", singular_values.size(),
                                                   " singular values, expected one for each of ",
                                                   rank, " latents"));
  }
  for (int64_t i = 0; i < rank; ++i) {
    if (!std::isfinite(singular_values[i]) || !(singular_values[i] > 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("singular value ", i, " is ", singular_values[i],
                       ", expected a finite one above 0: lower the rank to ", i));
    }
  }
  return at::tensor(at::ArrayRef<double>(singular_values).slice(0, rank), factors.up.options());
}

// up diag(scale) and diag(scale)^-1 down.
absl::StatusOr<LowRank> Rescaled(const LowRank& factors, const at::Tensor& scale) {
  LowRank result{
      .down = factors.down / scale.unsqueeze(1), .up = factors.up * scale, .bias = factors.bias};
  LF_RETURN_IF_ERROR(factorize::CheckFinite(result.down, "down over the singular values"));
  LF_RETURN_IF_ERROR(factorize::CheckFinite(result.up, "up times the singular values"));
  return result;
}

absl::StatusOr<LowRank> Identity(const LowRank& factors, IdentitySide side) {
  LF_ASSIGN_OR_RETURN(const IdentityFactors identity, ToIdentity(factors, side));
  return Expand(identity);
}

}  // namespace

absl::StatusOr<LowRank> Join(const LowRank& factors, const std::vector<double>& singular_values,
                             Junction junction) {
  switch (junction) {
    case Junction::kLeftSingular: {
      LF_ASSIGN_OR_RETURN(const at::Tensor s, Divisors(factors, singular_values));
      return Rescaled(factors, s);
    }
    case Junction::kRightSingular:
      return factors;
    case Junction::kSymmetric: {
      LF_ASSIGN_OR_RETURN(const at::Tensor s, Divisors(factors, singular_values));
      return Rescaled(factors, s.sqrt());
    }
    case Junction::kLeftIdentity:
      return Identity(factors, IdentitySide::kLeft);
    case Junction::kRightIdentity:
      return Identity(factors, IdentitySide::kRight);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("junction is ", static_cast<int>(junction), ", expected one of the five"));
}

}  // namespace latentforge::low_rank
