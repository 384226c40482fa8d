// The work of attention_gradient.h between its matrix products, on one block of scores.
// attention_functions.cc is compiled once for each instruction set, with LF_ISA as the
// name of a namespace.
//
// A block is transposed: [keys, queries], row-major, with an even number of keys. T is
// what the products take: float, or Bf16 in pairs. The right-hand matrix [n, width] of a
// product of Bf16 holds its rows in pairs, [n / 2, width, 2]; of floats it is plain.
#pragma once

#include <cstdint>

#include "worker/model/row_kernels.h"

namespace latentforge::model {

struct ScoreBlock {
  const float* scores;  // q kᵀ, not scaled; -infinity where the query does not see the key
  const float* grown;   // v dOᵀ, the gradient by the probabilities; for `gradients` only
  int64_t keys;
  int64_t queries;
  float scale;
};

template <typename T>
struct AttentionFunctions {
  // Raises maximum [queries] to the largest score where that is more than 8 / scale above
  // it. factor [queries] = exp(scale * (old - new)). Returns whether any was raised. NaN
  // is kept.
  bool (*raise_maximum)(const ScoreBlock& block, float* maximum, float* factor);

  // With e = exp(scale * (score - maximum)): sum += e over the keys, and out = e as a
  // right-hand matrix [keys, queries].
  void (*weights)(const ScoreBlock& block, const float* maximum, float* sum, T* out);

  // probability = share * exp(scale * (score - maximum)), out = probability * (grown - delta),
  // both as left-hand matrices [keys, queries]; `pairs` is `out` as a right-hand matrix,
  // which floats do without: theirs is the same.
  void (*gradients)(const ScoreBlock& block, const float* maximum, const float* share,
                    const float* delta, T* probability, T* out, T* pairs);

  // The sum of a[i] * b[i].
  float (*dot)(const T* a, const T* b, int64_t width);

  // out = x * factor.
  void (*scale)(const float* x, float factor, int64_t width, T* out);

  // [rows, width] as a right-hand matrix; rows is even for Bf16.
  void (*pair)(const T* x, int64_t rows, int64_t width, T* out);

  // The transpose of [rows, width] as a right-hand matrix [width, rows]; both are multiples
  // of 32.
  void (*transpose_pair)(const T* x, int64_t rows, int64_t width, T* out);

  // The transpose of [rows, width], plain.
  void (*transpose)(const T* x, int64_t rows, int64_t width, T* out);
};

namespace generic {
extern const AttentionFunctions<float> kFloatAttention;
extern const AttentionFunctions<Bf16> kBf16Attention;
}  // namespace generic

// Only where the processor has them; x86-64-v3 and -v4 of the psABI.
namespace x86_v3 {
extern const AttentionFunctions<float> kFloatAttention;
extern const AttentionFunctions<Bf16> kBf16Attention;
}  // namespace x86_v3
namespace x86_v4 {
extern const AttentionFunctions<float> kFloatAttention;
extern const AttentionFunctions<Bf16> kBf16Attention;
}  // namespace x86_v4

}  // namespace latentforge::model
