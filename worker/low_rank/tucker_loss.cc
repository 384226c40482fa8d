#include "worker/low_rank/tucker_loss.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace latentforge::low_rank {
namespace {

// P_j C Q_j^T of each block of `width` rows, [blocks, width, width].
at::Tensor CrossMoments(const at::Tensor& p, const at::Tensor& moments, const at::Tensor& q,
                        int64_t width) {
  const at::Tensor moved = moments.defined() ? at::matmul(p, moments) : p;
  const int64_t blocks = p.size(0) / width;
  return at::bmm(moved.reshape({blocks, width, -1}),
                 q.reshape({blocks, width, -1}).transpose(1, 2));
}

}  // namespace

// With errors D = W - W', W_i^T R W_g - W_i'^T R W_g' = W_i^T R D_g + D_i^T R W_g'. Its squared
// norm has the two squares, which are the whole loss of orthogonal projections, and their product.
double TuckerLoss(const TuckerSide& left, const TuckerSide& right, int64_t width,
                  const std::optional<RopeMetric>& rope) {
  const TuckerCoupling coupling{.left_mean = {}, .right_mean = {}, .rope = rope};
  const int64_t groups = right.weight.size(0) / width;
  const at::Tensor left_error = left.weight - left.stand_in;
  const at::Tensor right_error = right.weight - right.stand_in;
  const auto of_left = [&](const at::Tensor& p, const at::Tensor& q) {
    return RightMetrics(coupling, groups, CrossMoments(p, left.moments, q, width));
  };
  const auto of_right = [&](const at::Tensor& p, const at::Tensor& q) {
    return CrossMoments(p, right.moments, q, width);
  };
  const at::Tensor terms =
      of_left(left.weight, left.weight) * of_right(right_error, right_error) +
      of_left(left_error, left_error) * of_right(right.stand_in, right.stand_in) +
      2 * of_left(left_error, left.weight) * of_right(right.stand_in, right_error);
  return std::max(0.0, terms.sum().item<double>());
}

}  // namespace latentforge::low_rank
