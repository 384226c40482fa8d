#include "worker/low_rank/block_identity.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::low_rank {
namespace {

// Elements of `rest` that an exchange of pivots leaves behind. LU alone ends at 1 to 3 but for rare
// matrices, whose elements grow as powers of 2.
constexpr double kLargestElement = 2;

absl::Status CheckFactors(const LowRank& factors) {
  for (const at::Tensor* factor : {&factors.down, &factors.up}) {
    if (!factor->defined() || factor->dim() != 2 || factor->scalar_type() != at::kDouble ||
        factor->numel() == 0) {
      return absl::InvalidArgumentError("a factor is not a non-empty matrix of Double");
    }
  }
  if (factors.up.size(1) != factors.down.size(0)) {
    return absl::InvalidArgumentError(absl::StrCat("up has ", factors.up.size(1),
                                                   " columns, expected as many as down has rows, ",
                                                   factors.down.size(0)));
  }
  LF_RETURN_IF_ERROR(factorize::CheckFinite(factors.down, "down"));
  return factorize::CheckFinite(factors.up, "up");
}

// The rows of a matrix [r, n], each divided by its norm: their scale says nothing of their span.
at::Tensor UnitRows(const at::Tensor& rows) {
  const at::Tensor norms = at::linalg_vector_norm(rows, 2, at::IntArrayRef{1}, /*keepdim=*/true);
  return rows / at::where(norms > 0, norms, at::ones_like(norms));
}

// The columns of unit rows [r, n] in the order in which LU with partial pivoting of their transpose
// takes them. InvalidArgument when the rows depend on each other.
absl::StatusOr<std::vector<int64_t>> LuOrder(const at::Tensor& rows) {
  const int64_t r = rows.size(0);
  const int64_t n = rows.size(1);
  const auto [lu, swaps] = at::linalg_lu_factor(rows.t().contiguous());
  const double rounding = std::numeric_limits<double>::epsilon() * double(n);
  const int64_t independent = (lu.diagonal().abs() > rounding).sum().item<int64_t>();
  if (independent < r) {
    return absl::InvalidArgumentError(
        absl::StrCat("factor has ", independent, " independent latents of ", r,
                     ", expected all to be: lower the rank to ", independent));
  }
  std::vector<int64_t> order(n);
  for (int64_t i = 0; i < n; ++i) order[i] = i;
  const at::Tensor host = swaps.to(at::kCPU);
  for (int64_t i = 0; i < r; ++i) {
    std::swap(order[i], order[host[i].item<int64_t>() - 1]);
  }
  return order;
}
