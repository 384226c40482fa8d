// Row-wise operations on the CPU, each in one pass over memory, spread over
// LibTorch's own threads. Plain pointers: the callers check shapes and types.
#pragma once

#include <cstdint>

namespace latentforge::model {

// A bfloat16 as its bits: the upper half of a float.
struct Bf16 {
  uint16_t bits;
};

// Rows of `width` elements, `stride` elements apart.
template <typename T>
struct Rows {
  T* data;
  int64_t count;
  int64_t width;
  int64_t stride;
};

// out = x * scale, rounded to T, times weight [width]; scale = 1 / sqrt(mean(x²) +
// epsilon). Computed in fp32. `out` may be x.
template <typename T>
void RmsNormRows(Rows<const T> x, const T* weight, float epsilon, Rows<T> out);

// out = silu(g) * u for rows [g, u] of twice the width of `out`.
template <typename T>
void SiluMultiplyRows(Rows<const T> gate_up, Rows<T> out);

// Rotates each row's heads in place. A row is `heads` heads of twice `half`
// elements; row i uses row (i mod length) of cos and sin [length, half].
template <typename T>
void RopeRows(Rows<T> x, const T* cos, const T* sin, int64_t length, int64_t half);

// Takes logits into a running log-sum-exp: maximum and sum, [count] each, so that
// exp(maximum) * sum is the sum of exp over all logits so far.
template <typename T>
void LogSumExpRows(Rows<const T> logits, float* maximum, float* sum);

// The gradient of RmsNormRows by x, from the one by its output.
template <typename T>
void RmsNormGradientRows(Rows<const T> x, const T* weight, Rows<const T> gradient, float epsilon,
                         Rows<T> out);

// The gradient of SiluMultiplyRows by gate_up, from the one by its output.
template <typename T>
void SiluMultiplyGradientRows(Rows<const T> gate_up, Rows<const T> gradient, Rows<T> out);

// In place: exp(logit - log_total), minus 1 at each row's label; a label outside the
// row takes nothing away. log_total and labels: [count].
template <typename T>
void SoftmaxErrorRows(Rows<T> logits, const float* log_total, const int64_t* labels);

// divergence[i] = KL(p || q) in nats, p and q being the softmaxes of row i of `target` and of
// `logits`, of equal width, whose log-sum-exps are given. In place of the logits their gradient,
// q - p.
template <typename T>
void DivergenceRows(Rows<const T> target, Rows<T> logits, const float* target_log_total,
                    const float* log_total, double* divergence);

}  // namespace latentforge::model
