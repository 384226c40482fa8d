// A metric of output errors and its root.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"

namespace latentforge::low_rank {

// G = R R^T, by which an output error e counts |R^T e|^2 = e^T G e. Immutable; safe for concurrent
// use.
class ErrorMetric {
 public:
  // Of Q^T G Q, where G is undefined (the identity), [out] (its diagonal) or [out, out] (positive
  // semidefinite), and Q is [out, k] with orthonormal columns or undefined (the identity), in
  // fp64. Directions that G does not see count 1e-12 of its largest eigenvalue, so that R has an
  // inverse and they follow the others as well as they can. InvalidArgument for another shape or
  // type and for a metric that is zero or indefinite; Internal when it is not finite. LibTorch's
  // own exceptions pass through.
  static absl::StatusOr<ErrorMetric> Of(const at::Tensor& metric, int64_t out, const at::Tensor& q);

  // R^T M, R^T M R and R^-T M.
  at::Tensor Weigh(const at::Tensor& m) const;
  at::Tensor WeighBothSides(const at::Tensor& m) const;
  at::Tensor Unweigh(const at::Tensor& m) const;
  // R M.
  at::Tensor Root(const at::Tensor& m) const;

 private:
  at::Tensor root_;     // R; undefined when Q^T G Q = I
  at::Tensor inverse_;  // R^-T; undefined when R is lower triangular
};

}  // namespace latentforge::low_rank
