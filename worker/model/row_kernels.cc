#include "worker/model/row_kernels.h"

#include <type_traits>

#include "worker/model/row_functions.h"

namespace latentforge::model {
namespace {

Isa DetectIsa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd")) {
    return Isa::kV4;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) {
    return Isa::kV3;
  }
#endif
  return Isa::kGeneric;
}

// The functions for this processor.
template <typename T>
const RowFunctions<T>& Best() {
#if defined(__x86_64__)
  const Isa isa = BestIsa();
  if (isa == Isa::kV4) return Choose<T>(x86_v4::kFloat, x86_v4::kBf16);
  if (isa == Isa::kV3) return Choose<T>(x86_v3::kFloat, x86_v3::kBf16);
#endif
  return Choose<T>(generic::kFloat, generic::kBf16);
}

}  // namespace

Isa BestIsa() {
  static const Isa isa = DetectIsa();
  return isa;
}

template <typename T>
void RmsNormRows(Rows<const T> x, const T* weight, float epsilon, Rows<T> out) {
  const RowFunctions<T>& functions = Best<T>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < x.count; ++i) {
    functions.norm(x.data + i * x.stride, weight, x.width, epsilon, out.data + i * out.stride);
  }
}

template <typename T>
void SiluMultiplyRows(Rows<const T> gate_up, Rows<T> out) {
  const RowFunctions<T>& functions = Best<T>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < out.count; ++i) {
    const T* const gate = gate_up.data + i * gate_up.stride;
    functions.silu_multiply(gate, gate + out.width, out.width, out.data + i * out.stride);
  }
}

template <typename T>
void RopeRows(Rows<T> x, const T* cos, const T* sin, int64_t length, int64_t half) {
  const RowFunctions<T>& functions = Best<T>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < x.count; ++i) {
    const int64_t offset = i % length * half;
    functions.rope(x.data + i * x.stride, cos + offset, sin + offset, half, x.width / (2 * half));
  }
}

template <typename T>
void LogSumExpRows(Rows<const T> logits, float* maximum, float* sum) {
  const RowFunctions<T>& functions = Best<T>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < logits.count; ++i) {
    functions.log_sum_exp(logits.data + i * logits.stride, logits.width, maximum + i, sum + i);
  }
}

template <typename T>
void RmsNormGradientRows(Rows<const T> x, const T* weight, Rows<const T> gradient, float epsilon,
                         Rows<T> out) {
  const RowFunctions<T>& functions = Best<T>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < x.count; ++i) {
    functions.norm_gradient(x.data + i * x.stride, weight, gradient.data + i * gradient.stride,
                            x.width, epsilon, out.data + i * out.stride);
  }
}

template <typename T>
void SiluMultiplyGradientRows(Rows<const T> gate_up, Rows<const T> gradient, Rows<T> out) {
  const RowFunctions<T>& functions = Best<T>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < out.count; ++i) {
    functions.silu_multiply_gradient(gate_up.data + i * gate_up.stride,
                                     gradient.data + i * gradient.stride, gradient.width,
                                     out.data + i * out.stride);
  }
}

template <typename T>
void SoftmaxErrorRows(Rows<T> logits, const float* log_total, const int64_t* labels) {
  const RowFunctions<T>& functions = Best<T>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < logits.count; ++i) {
    functions.softmax_error(logits.data + i * logits.stride, logits.width, log_total[i], labels[i]);
  }
}

template <typename T>
void DivergenceRows(Rows<const T> target, Rows<T> logits, const float* target_log_total,
                    const float* log_total, double* divergence) {
  const RowFunctions<T>& functions = Best<T>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < logits.count; ++i) {
    divergence[i] =
        functions.divergence(target.data + i * target.stride, logits.data + i * logits.stride,
                             logits.width, target_log_total[i], log_total[i]);
  }
}

template void RmsNormRows(Rows<const float>, const float*, float, Rows<float>);
template void RmsNormRows(Rows<const Bf16>, const Bf16*, float, Rows<Bf16>);
template void SiluMultiplyRows(Rows<const float>, Rows<float>);
template void SiluMultiplyRows(Rows<const Bf16>, Rows<Bf16>);
template void RopeRows(Rows<float>, const float*, const float*, int64_t, int64_t);
template void RopeRows(Rows<Bf16>, const Bf16*, const Bf16*, int64_t, int64_t);
template void LogSumExpRows(Rows<const float>, float*, float*);
template void LogSumExpRows(Rows<const Bf16>, float*, float*);
template void RmsNormGradientRows(Rows<const float>, const float*, Rows<const float>, float,
                                  Rows<float>);
template void RmsNormGradientRows(Rows<const Bf16>, const Bf16*, Rows<const Bf16>, float,
                                  Rows<Bf16>);
template void SiluMultiplyGradientRows(Rows<const float>, Rows<const float>, Rows<float>);
template void SiluMultiplyGradientRows(Rows<const Bf16>, Rows<const Bf16>, Rows<Bf16>);
template void SoftmaxErrorRows(Rows<float>, const float*, const int64_t*);
template void SoftmaxErrorRows(Rows<Bf16>, const float*, const int64_t*);
template void DivergenceRows(Rows<const float>, Rows<float>, const float*, const float*, double*);
template void DivergenceRows(Rows<const Bf16>, Rows<Bf16>, const float*, const float*, double*);

}  // namespace latentforge::model
