#include "worker/model/row_functions.h"

#include "worker/model/row_math.h"

// Everything here has internal linkage; see row_math.h.
namespace latentforge::model::LF_ISA {
namespace {

// Partial results per row: wide enough for two 512-bit registers.
constexpr int64_t kLanes = 32;

template <typename T>
LF_INLINE float SumOfSquares(const T* x, int64_t width) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += Load(x + i + j) * Load(x + i + j);
  }
  for (; i < width; ++i) lanes[0] += Load(x + i) * Load(x + i);
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

template <typename T>
void RmsNormRow(const T* x, const T* weight, int64_t width, float epsilon, T* out) {
  const float mean = SumOfSquares(x, width) / static_cast<float>(width);
  const float scale = 1.0f / __builtin_sqrtf(mean + epsilon);
  for (int64_t i = 0; i < width; ++i) {
    Store(Rounded<T>(Load(x + i) * scale) * Load(weight + i), out + i);
  }
}

template <typename T>
void SiluMultiplyRow(const T* gate, const T* up, int64_t width, T* out) {
  for (int64_t i = 0; i < width; ++i) {
    const float g = Load(gate + i);
    Store(g / (1.0f + Exp(-g)) * Load(up + i), out + i);
  }
}

template <typename T>
LF_INLINE void RotateHalves(T* __restrict x, T* __restrict y, const T* __restrict cos,
                            const T* __restrict sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = Load(x + i), b = Load(y + i);
    const float c = Load(cos + i), s = Load(sin + i);
    Store(a * c - b * s, x + i);
    Store(b * c + a * s, y + i);
  }
}

// y_i = x_i s w_i with s = 1 / sqrt(mean(x²) + epsilon), h = g w: dL/dx = s h - x s³ mean(h x).
template <typename T>
void RmsNormGradientRow(const T* x, const T* weight, const T* gradient, int64_t width,
                        float epsilon, T* out) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      lanes[j] += Load(x + i + j) * Load(gradient + i + j) * Load(weight + i + j);
    }
  }
  for (; i < width; ++i) lanes[0] += Load(x + i) * Load(gradient + i) * Load(weight + i);
  float product = 0;
  for (const float lane : lanes) product += lane;
  const float mean = SumOfSquares(x, width) / static_cast<float>(width);
  const float scale = 1.0f / __builtin_sqrtf(mean + epsilon);
  const float along = scale * scale * scale * (product / static_cast<float>(width));
  for (int64_t j = 0; j < width; ++j) {
    Store(Load(gradient + j) * Load(weight + j) * scale - Load(x + j) * along, out + j);
  }
}

// By g: d u sigmoid(g) (1 + g (1 - sigmoid(g))); by u: d silu(g).
template <typename T>
void SiluMultiplyGradientRow(const T* gate_up, const T* gradient, int64_t width, T* out) {
  const T* const __restrict gate = gate_up;
  const T* const __restrict up = gate_up + width;
  T* const __restrict gate_out = out;
  T* const __restrict up_out = out + width;
  for (int64_t i = 0; i < width; ++i) {
    const float g = Load(gate + i);
    const float d = Load(gradient + i);
    const float sigmoid = 1.0f / (1.0f + Exp(-g));
    Store(d * Load(up + i) * (sigmoid * (1.0f + g * (1.0f - sigmoid))), gate_out + i);
    Store(d * (g * sigmoid), up_out + i);
  }
}

template <typename T>
LF_INLINE float Maximum(const T* x, int64_t width, float start) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = start;
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      const float value = Load(x + i + j);
      // Written so that a NaN is taken and kept: it must reach the result.
      lanes[j] = value <= lanes[j] ? lanes[j] : (lanes[j] != lanes[j] ? lanes[j] : value);
    }
  }
  for (; i < width; ++i) {
    const float value = Load(x + i);
    lanes[0] = value <= lanes[0] ? lanes[0] : (lanes[0] != lanes[0] ? lanes[0] : value);
  }
  float maximum = start;
  for (const float lane : lanes) maximum = lane <= maximum ? maximum : lane;
  for (const float lane : lanes) maximum = lane != lane ? lane : maximum;
  return maximum;
}

template <typename T>
LF_INLINE float SumOfExp(const T* x, int64_t width, float maximum) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += Exp(Load(x + i + j) - maximum);
  }
  for (; i < width; ++i) lanes[0] += Exp(Load(x + i) - maximum);
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

template <typename T>
void LogSumExpRow(const T* x, int64_t width, float* maximum, float* sum) {
  const float raised = Maximum(x, width, *maximum);
  *sum = *sum * Exp(*maximum - raised) + SumOfExp(x, width, raised);
  *maximum = raised;
}

template <typename T>
void SoftmaxErrorRow(T* logits, int64_t width, float log_total, int64_t label) {
  const bool inside = label >= 0 && label < width;
  // Before rounding: 1 - p of a likely label has few digits in common with p.
  const float at_label = inside ? Exp(Load(logits + label) - log_total) - 1.0f : 0.0f;
  for (int64_t i = 0; i < width; ++i) Store(Exp(Load(logits + i) - log_total), logits + i);
  if (inside) Store(at_label, logits + label);
}

// sum p (log p - log q). The lanes are summed in fp64: the terms nearly cancel where p and q are
// close, and there are as many as the vocabulary has entries.
template <typename T>
double DivergenceRow(const T* __restrict target, T* __restrict logits, int64_t width,
                     float target_log_total, float log_total) {
  double sum = 0;
  int64_t i = 0;
  constexpr int64_t kBlock = 64 * kLanes;
  while (i < width) {
    float lanes[kLanes] = {};
    const int64_t whole = i + (width - i < kBlock ? (width - i) / kLanes * kLanes : kBlock);
    for (; i < whole; i += kLanes) {
      for (int64_t j = 0; j < kLanes; ++j) {
        const float a = Load(target + i + j) - target_log_total;
        const float b = Load(logits + i + j) - log_total;
        const float p = Exp(a);
        lanes[j] += p * (a - b);
        Store(Exp(b) - p, logits + i + j);
      }
    }
    for (const float lane : lanes) sum += static_cast<double>(lane);
    if (width - i >= kLanes) continue;
    for (; i < width; ++i) {
      const float a = Load(target + i) - target_log_total;
      const float b = Load(logits + i) - log_total;
      const float p = Exp(a);
      sum += static_cast<double>(p * (a - b));
      Store(Exp(b) - p, logits + i);
    }
  }
  return sum;
}

template <typename T>
void RopeRow(T* x, const T* cos, const T* sin, int64_t half, int64_t heads) {
  for (int64_t head = 0; head < heads; ++head, x += 2 * half) {
    RotateHalves(x, x + half, cos, sin, half);
  }
}

template <typename T>
constexpr RowFunctions<T> kAll = {
    RmsNormRow<T>,         SiluMultiplyRow<T>,         RopeRow<T>,         LogSumExpRow<T>,
    RmsNormGradientRow<T>, SiluMultiplyGradientRow<T>, SoftmaxErrorRow<T>, DivergenceRow<T>};

}  // namespace

const RowFunctions<float> kFloat = kAll<float>;
const RowFunctions<Bf16> kBf16 = kAll<Bf16>;

}  // namespace latentforge::model::LF_ISA
