#include "worker/low_rank/block_identity.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
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
  const auto [lu, swaps, info] = at::linalg_lu_factor_ex(rows.t().contiguous());
  const double rounding = std::numeric_limits<double>::epsilon() * double(n);
  const int64_t independent = (lu.diagonal().abs() > rounding).sum().item<int64_t>();
  if (independent < r) {
    return absl::InvalidArgumentError(
        absl::StrCat("factor has ", independent, " independent latents of ", r,
                     ", expected all to be: lower the rank to ", independent));
  }
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  const at::Tensor host = swaps.to(at::kCPU);
  for (int64_t i = 0; i < r; ++i) {
    std::swap(order[i], order[host[i].item<int64_t>() - 1]);
  }
  return order;
}

// Exchanges columns of unit rows until no element of J^-1 rest is above the bound, J the first r
// columns in `order` and `rest` the others. It ends: every exchange raises |det J|.
void Exchange(const at::Tensor& rows, std::vector<int64_t>& order) {
  const int64_t r = rows.size(0);
  const int64_t others = rows.size(1) - r;
  if (others == 0) return;
  const at::Tensor ordered = rows.index_select(1, at::tensor(order).to(rows.device()));
  at::Tensor rest = at::linalg_solve(ordered.narrow(1, 0, r), ordered.narrow(1, r, others));
  while (true) {
    const int64_t largest = rest.abs().argmax().item<int64_t>();
    const int64_t i = largest / others;
    const int64_t j = largest % others;
    const double element = rest[i][j].item<double>();
    if (!(std::abs(element) > kLargestElement)) return;  // also when it is no number
    // With column i of the identity e and column j of `rest` t, J' = J (I + (t - e) e^T), whose
    // inverse Sherman and Morrison's formula gives.
    at::Tensor column = rest.select(1, j).clone();
    at::Tensor row = rest.select(0, i).clone();
    column[i] -= 1;
    row[j] += 1;
    rest.addr_(column, row, /*beta=*/1, /*alpha=*/-1 / element);
    std::swap(order[i], order[r + j]);
  }
}

struct Pivoted {
  at::Tensor pivots;  // [n]
  at::Tensor rest;    // J^-1 rows[:, p2], [r, n - r]
};

// The pivots of `rows` [r, n], r <= n, and what remains of them besides the identity.
absl::StatusOr<Pivoted> Pivot(const at::Tensor& rows) {
  const int64_t r = rows.size(0);
  const at::Tensor unit = UnitRows(rows);
  LF_ASSIGN_OR_RETURN(std::vector<int64_t> order, LuOrder(unit));
  Exchange(unit, order);
  std::sort(order.begin(), order.begin() + r);
  std::sort(order.begin() + r, order.end());
  const at::Tensor pivots = at::tensor(order).to(rows.device());
  const at::Tensor ordered = unit.index_select(1, pivots);
  return Pivoted{
      .pivots = pivots,
      .rest = at::linalg_solve(ordered.narrow(1, 0, r), ordered.narrow(1, r, order.size() - r))};
}

// p1 and p2.
at::Tensor IdentityPivots(const IdentityFactors& factors) {
  return factors.pivots.narrow(0, 0, factors.rank());
}

at::Tensor OtherPivots(const IdentityFactors& factors) {
  return factors.pivots.slice(0, factors.rank());
}

}  // namespace

absl::StatusOr<IdentityFactors> ToIdentity(const LowRank& factors, IdentitySide side) {
  LF_RETURN_IF_ERROR(CheckFactors(factors));
  const bool right = side == IdentitySide::kRight;
  const at::Tensor rows = right ? factors.down : factors.up.t();
  if (rows.size(0) > rows.size(1)) {
    return absl::InvalidArgumentError(absl::StrCat("rank is ", rows.size(0), ", expected at most ",
                                                   rows.size(1),
                                                   ", the size of the side that "
                                                   "takes the identity"));
  }
  LF_ASSIGN_OR_RETURN(const Pivoted pivoted, Pivot(rows));
  IdentityFactors result{.pivots = pivoted.pivots, .right = right, .bias = factors.bias};
  const at::Tensor junction = rows.index_select(1, result.pivots.narrow(0, 0, rows.size(0)));
  result.rest = right ? pivoted.rest : pivoted.rest.t().contiguous();
  result.other = right ? at::matmul(factors.up, junction) : at::matmul(junction.t(), factors.down);
  LF_RETURN_IF_ERROR(factorize::CheckFinite(result.rest, "the factor beside the identity"));
  LF_RETURN_IF_ERROR(factorize::CheckFinite(result.other, "the factor without the identity"));
  return result;
}

LowRank Expand(const IdentityFactors& factors) {
  const at::Tensor eye = at::eye(factors.rank(), factors.other.options());
  const int64_t axis = factors.right ? 1 : 0;
  // Column (row) pivots[k] of the whole factor is the k-th of [I, rest].
  const at::Tensor whole =
      at::cat({eye, factors.rest}, axis).index_select(axis, factors.pivots.argsort());
  return factors.right ? LowRank{.down = whole, .up = factors.other, .bias = factors.bias}
                       : LowRank{.down = factors.other, .up = whole, .bias = factors.bias};
}

at::Tensor Apply(const IdentityFactors& factors, const at::Tensor& x) {
  at::Tensor y;
  if (factors.right) {
    const at::Tensor latent = x.index_select(1, IdentityPivots(factors)) +
                              at::matmul(x.index_select(1, OtherPivots(factors)), factors.rest.t());
    y = at::matmul(latent, factors.other.t());
  } else {
    const at::Tensor latent = at::matmul(x, factors.other.t());
    y = at::cat({latent, at::matmul(latent, factors.rest.t())}, 1)
            .index_select(1, factors.pivots.argsort());
  }
  return factors.bias.defined() ? y + factors.bias : y;
}

int64_t StoredNumbers(const IdentityFactors& factors) {
  return factors.rest.numel() + factors.other.numel();
}

}  // namespace latentforge::low_rank
