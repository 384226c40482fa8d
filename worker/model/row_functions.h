// One row of each operation of row_kernels.h. row_functions.cc is compiled once for
// each instruction set, with LF_ISA as the name of a namespace.
#pragma once

#include <cstdint>
#include <type_traits>

#include "worker/model/row_kernels.h"

namespace latentforge::model {

enum class Isa { kGeneric, kV3, kV4 };

// The best that this processor has.
Isa BestIsa();

// The table of functions for T, float or Bf16.
template <typename T, template <typename> class Table>
const Table<T>& Choose(const Table<float>& wide, const Table<Bf16>& narrow) {
  if constexpr (std::is_same_v<T, float>) {
    return wide;
  } else {
    return narrow;
  }
}

template <typename T>
struct RowFunctions {
  void (*norm)(const T* x, const T* weight, int64_t width, float epsilon, T* out);
  void (*silu_multiply)(const T* gate, const T* up, int64_t width, T* out);
  void (*rope)(T* x, const T* cos, const T* sin, int64_t half, int64_t heads);
  void (*log_sum_exp)(const T* x, int64_t width, float* maximum, float* sum);
  void (*norm_gradient)(const T* x, const T* weight, const T* gradient, int64_t width,
                        float epsilon, T* out);
  void (*silu_multiply_gradient)(const T* gate_up, const T* gradient, int64_t width, T* out);
  void (*softmax_error)(T* logits, int64_t width, float log_total, int64_t label);
  double (*divergence)(const T* target, T* logits, int64_t width, float target_log_total,
                       float log_total);
};

namespace generic {
extern const RowFunctions<float> kFloat;
extern const RowFunctions<Bf16> kBf16;
}  // namespace generic

// Only where the processor has them; x86-64-v3 and -v4 of the psABI.
namespace x86_v3 {
extern const RowFunctions<float> kFloat;
extern const RowFunctions<Bf16> kBf16;
}  // namespace x86_v3
namespace x86_v4 {
extern const RowFunctions<float> kFloat;
extern const RowFunctions<Bf16> kBf16;
}  // namespace x86_v4

}  // namespace latentforge::model
