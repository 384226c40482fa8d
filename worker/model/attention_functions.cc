#include "worker/model/attention_functions.h"

#include <type_traits>

#include "worker/model/row_math.h"

// Everything here has internal linkage; see row_math.h.
namespace latentforge::model::LF_ISA {
namespace {

// A maximum that the largest scaled score exceeds by this leaves exp and its sums far from
// overflow. Scores are scaled after the subtraction: near their maximum it is exact.
constexpr float kSlack = 8.0f;

bool RaiseMaximum(const ScoreBlock& block, float* __restrict maximum, float* __restrict factor) {
  const int64_t n = block.queries;
  for (int64_t i = 0; i < n; ++i) factor[i] = block.scores[i];
  for (int64_t k = 1; k < block.keys; ++k) {
    const float* const __restrict scores = block.scores + k * n;
    for (int64_t i = 0; i < n; ++i) {
      // Written so that a NaN is taken and kept.
      const float top = factor[i];
      factor[i] = scores[i] <= top ? top : (top != top ? top : scores[i]);
    }
  }
  int32_t raised = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float old = maximum[i];
    const float top = factor[i];
    const bool raise = !((top - old) * block.scale <= kSlack);
    factor[i] = raise ? Exp((old - top) * block.scale) : 1.0f;
    maximum[i] = raise ? top : old;
    raised |= raise ? 1 : 0;
  }
  return raised != 0;
}

// Rows k and k + 1 of a right-hand matrix at column i of n.
LF_INLINE void StorePair(float first, float second, int64_t i, int64_t n, float* out) {
  out[i] = first;
  out[n + i] = second;
}

LF_INLINE void StorePair(float first, float second, int64_t i, int64_t /*n*/, Bf16* out) {
  Bf16 low, high;
  Store(first, &low);
  Store(second, &high);
  // As one word, or the compiler makes no vectors of it; products take pairs on
  // little-endian processors only.
  const uint32_t word = uint32_t{low.bits} | uint32_t{high.bits} << 16;
  __builtin_memcpy(out + 2 * i, &word, sizeof(word));
}

template <typename T>
void Weights(const ScoreBlock& block, const float* __restrict maximum, float* __restrict sum,
             T* __restrict out) {
  const int64_t n = block.queries;
  const float scale = block.scale;
  for (int64_t k = 0; k < block.keys; k += 2) {
    const float* const __restrict scores = block.scores + k * n;
    T* const __restrict pairs = out + k * n;
    for (int64_t i = 0; i < n; ++i) {
      const float first = Exp((scores[i] - maximum[i]) * scale);
      const float second = Exp((scores[n + i] - maximum[i]) * scale);
      sum[i] += first + second;
      StorePair(first, second, i, n, pairs);
    }
  }
}

template <typename T>
void Gradients(const ScoreBlock& block, const float* __restrict maximum,
               const float* __restrict share, const float* __restrict delta,
               T* __restrict probability, T* __restrict out, T* __restrict pairs) {
  const int64_t n = block.queries;
  const float scale = block.scale;
  for (int64_t k = 0; k < block.keys; k += 2) {
    const float* const __restrict scores = block.scores + k * n;
    const float* const __restrict grown = block.grown + k * n;
    T* const __restrict p = probability + k * n;
    T* const __restrict ds = out + k * n;
    for (int64_t i = 0; i < n; ++i) {
      const float first = Exp((scores[i] - maximum[i]) * scale) * share[i];
      const float second = Exp((scores[n + i] - maximum[i]) * scale) * share[i];
      const float first_gradient = first * (grown[i] - delta[i]);
      const float second_gradient = second * (grown[n + i] - delta[i]);
      Store(first, p + i);
      Store(second, p + n + i);
      Store(first_gradient, ds + i);
      Store(second_gradient, ds + n + i);
      if constexpr (std::is_same_v<T, Bf16>) {
        StorePair(first_gradient, second_gradient, i, n, pairs + k * n);
      }
    }
  }
}

template <typename T>
float Dot(const T* a, const T* b, int64_t width) {
  constexpr int64_t kLanes = 16;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += Load(a + i + j) * Load(b + i + j);
  }
  for (; i < width; ++i) lanes[0] += Load(a + i) * Load(b + i);
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

template <typename T>
void Scale(const float* x, float factor, int64_t width, T* out) {
  for (int64_t i = 0; i < width; ++i) Store(x[i] * factor, out + i);
}

template <typename T>
void Pair(const T* __restrict x, int64_t rows, int64_t width, T* __restrict out) {
  if constexpr (std::is_same_v<T, float>) {
    for (int64_t i = 0; i < rows * width; ++i) out[i] = x[i];
  } else {
    for (int64_t r = 0; r < rows; r += 2) {
      const T* const __restrict low = x + r * width;
      T* const __restrict pairs = out + r * width;
      for (int64_t i = 0; i < width; ++i) {
        const uint32_t word = uint32_t{low[i].bits} | uint32_t{low[width + i].bits} << 16;
        __builtin_memcpy(pairs + 2 * i, &word, sizeof(word));
      }
    }
  }
}

// Words of an element or of a pair of elements, in tiles that fit the registers.
template <typename Word, typename T>
LF_INLINE void TransposeWords(const T* __restrict x, int64_t rows, int64_t width,
                              T* __restrict out) {
  constexpr int64_t kSide = 16;
  constexpr int64_t kEach = sizeof(Word) / sizeof(T);
  const int64_t words = width / kEach;
  for (int64_t r = 0; r < rows; r += kSide) {
    for (int64_t w = 0; w < words; w += kSide) {
      for (int64_t j = 0; j < kSide; ++j) {
        for (int64_t i = 0; i < kSide; ++i) {
          __builtin_memcpy(out + ((w + j) * rows + r + i) * kEach,
                           x + ((r + i) * words + w + j) * kEach, sizeof(Word));
        }
      }
    }
  }
}

template <typename T>
void TransposePair(const T* x, int64_t rows, int64_t width, T* out) {
  TransposeWords<uint32_t>(x, rows, width, out);
}

template <typename T>
void Transpose(const T* x, int64_t rows, int64_t width, T* out) {
  TransposeWords<T>(x, rows, width, out);
}

template <typename T>
constexpr AttentionFunctions<T> kAll = {RaiseMaximum, Weights<T>, Gradients<T>,     Dot<T>,
                                        Scale<T>,     Pair<T>,    TransposePair<T>, Transpose<T>};

}  // namespace

const AttentionFunctions<float> kFloatAttention = kAll<float>;
const AttentionFunctions<Bf16> kBf16Attention = kAll<Bf16>;

}  // namespace latentforge::model::LF_ISA
