#include "worker/low_rank/tucker_mode.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "worker/factorize/eigenbasis.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::low_rank {
namespace {

using factorize::DescendingEigenbasis;
using factorize::Eigenbasis;

// Eigenvalues below this share of the largest are noise: their latents are left free.
constexpr double kSilent = 1e-12;

// Blocks on the diagonal [blocks, n, n] times rows [blocks * n, k].
at::Tensor BlockTimes(const at::Tensor& blocks, const at::Tensor& rows) {
  return at::bmm(blocks, rows.reshape({blocks.size(0), blocks.size(2), rows.size(1)}))
      .reshape(rows.sizes());
}

// The Gram of each block of `width` rows, [blocks, width, width].
at::Tensor BlockGrams(const at::Tensor& rows, int64_t width) {
  const at::Tensor blocks = rows.reshape({rows.size(0) / width, width, rows.size(1)});
  return at::bmm(blocks, blocks.transpose(1, 2));
}

at::Tensor Symmetrised(const at::Tensor& matrix) { return 0.5 * (matrix + matrix.t()); }

int64_t CountHeard(const std::vector<double>& values, int64_t rank) {
  int64_t heard = 0;
  while (heard < rank && values[heard] > kSilent * values[0]) ++heard;
  return heard;
}

// R_j with R_j R_j^T = S_j for a batch of symmetric matrices [..., n, n]; eigenvalues that rounding
// left below 0 count as 0.
at::Tensor SymmetricRoots(const at::Tensor& matrices) {
  const auto [values, vectors] = at::linalg_eigh(0.5 * (matrices + matrices.transpose(-2, -1)));
  return vectors * values.clamp_min(0).sqrt().unsqueeze(-2);
}

}  // namespace

absl::StatusOr<TuckerMode> TuckerMode::Create(const at::Tensor& weight,
                                              const at::Tensor& covariance, int64_t width) {
  TuckerMode mode;
  mode.weight_ = weight;
  mode.covariance_ = covariance;
  const int64_t m = weight.size(0);
  if (m > weight.size(1)) {
    mode.rooted_ = covariance.defined() ? at::matmul(weight, SymmetricRoots(covariance)) : weight;
    mode.energy_ = BlockGrams(mode.rooted_, width);
  } else {
    const at::Tensor moved = covariance.defined() ? at::matmul(weight, covariance) : weight;
    mode.outputs_ = Symmetrised(at::matmul(moved, weight.t()));
    const int64_t blocks = m / width;
    mode.energy_ =
        mode.outputs_.reshape({blocks, width, blocks, width}).diagonal(0, 0, 2).permute({2, 0, 1});
  }
  LF_RETURN_IF_ERROR(factorize::CheckFinite(mode.energy_, "W C W^T"));
  return mode;
}

// N = R^T (W C W^T) R where m <= D, else M with F for C^(1/2), which is as good a root.
absl::StatusOr<at::Tensor> TuckerMode::Operator(const at::Tensor& roots) const {
  const at::Tensor transposed = roots.transpose(1, 2);
  at::Tensor result;
  if (of_outputs()) {
    result = BlockTimes(transposed, BlockTimes(transposed, outputs_).t());
  } else {
    const at::Tensor weighted = BlockTimes(transposed, rooted_);
    result = at::matmul(weighted.t(), weighted);
  }
  LF_RETURN_IF_ERROR(factorize::CheckFinite(result, "the weighted moments of the heads' outputs"));
  return Symmetrised(result);
}

absl::StatusOr<ModeBasis> TuckerMode::Solve(const at::Tensor& metrics, int64_t rank) const {
  const at::Tensor roots = SymmetricRoots(metrics);
  LF_ASSIGN_OR_RETURN(const at::Tensor matrix, Operator(roots));
  const Eigenbasis basis = DescendingEigenbasis(matrix);
  const int64_t heard = CountHeard(basis.values, rank);
  const at::Tensor leading = basis.vectors.narrow(1, 0, heard);
  const at::Tensor values = at::tensor(basis.values, leading.options()).narrow(0, 0, heard);
  ModeBasis result;
  result.up = of_outputs() ? at::matmul(outputs_, BlockTimes(roots, leading)) / values.sqrt()
                           : at::matmul(rooted_, leading);
  result.encoder = (BlockTimes(metrics, result.up) / values).t();
  result.energy = BlockGrams(result.up, width());
  return result;
}

absl::StatusOr<std::vector<double>> TuckerMode::Spectrum(const at::Tensor& metrics) const {
  LF_ASSIGN_OR_RETURN(const at::Tensor matrix, Operator(SymmetricRoots(metrics)));
  return factorize::DescendingEigenvalues(matrix);
}

LowRank TuckerMode::Factors(const ModeBasis& basis, int64_t rank) const {
  const at::Tensor down = at::matmul(basis.encoder, weight_);
  // Rounding leaves A C A^T = I by the spread of the eigenvalues; what the decoder B = W C A^T
  // misses for that is seen in full in W itself, where no product has squared anything.
  const at::Tensor missed = weight_ - at::matmul(basis.up, down);
  const at::Tensor seen = covariance_.defined() ? at::matmul(missed, covariance_) : missed;
  const at::Tensor up = basis.up + at::matmul(seen, down.t());
  const int64_t free = rank - down.size(0);
  if (free <= 0) return {.down = down, .up = up, .bias = {}};
  // The rest is uncorrelated with the latents kept, so that their decoder stays the best.
  const at::Tensor rest = weight_ - at::matmul(up, down);
  const bool wide = rest.size(0) <= rest.size(1);
  const at::Tensor gram = wide ? at::matmul(rest, rest.t()) : at::matmul(rest.t(), rest);
  const at::Tensor leading = DescendingEigenbasis(Symmetrised(gram)).vectors.narrow(1, 0, free);
  const at::Tensor more_down = wide ? at::matmul(leading.t(), rest) : leading.t();
  const at::Tensor more_up = wide ? leading : at::matmul(rest, leading);
  return {.down = at::cat({down, more_down}, 0), .up = at::cat({up, more_up}, 1), .bias = {}};
}

}  // namespace latentforge::low_rank
