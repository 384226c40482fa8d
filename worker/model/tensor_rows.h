// Tensors as the rows that row_kernels.h works on.
#pragma once

#include <ATen/core/Tensor.h>

#include <type_traits>

#include "worker/model/row_kernels.h"

namespace latentforge::model {

// True for what row_kernels.h computes: fp32 and bf16 on the CPU.
inline bool HasRowKernels(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

// Calls f(T{}) with the element type of x, float or Bf16. Precondition:
// HasRowKernels(x).
template <typename F>
void WithElementType(const at::Tensor& x, const F& f) {
  if (x.scalar_type() == at::kFloat) {
    f(float{});
  } else {
    f(Bf16{});
  }
}

// The elements of a tensor that is written through, or only read for a const T.
template <typename T>
T* Elements(const at::Tensor& x) {
  if constexpr (std::is_const_v<T>) {
    return static_cast<T*>(x.const_data_ptr());
  } else {
    return static_cast<T*>(x.mutable_data_ptr());
  }
}

// A tensor [rows, width] whose last dimension is contiguous.
template <typename T>
Rows<T> RowsOf(const at::Tensor& x) {
  return {Elements<T>(x), x.size(0), x.size(1), x.stride(0)};
}

}  // namespace latentforge::model
