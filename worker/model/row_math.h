// Arithmetic for the files that are compiled once for each instruction set, with
// LF_ISA as the name of a namespace. Included by those files only.
#pragma once

#include <bit>
#include <cstdint>

#include "worker/model/row_kernels.h"

// Everything here must be inlined or have internal linkage: a function shared with
// another file could be linked in its form for a newer processor.
#define LF_INLINE inline __attribute__((always_inline))

namespace latentforge::model::LF_ISA {
namespace {

LF_INLINE float Load(const float* p) { return *p; }
LF_INLINE float Load(const Bf16* p) { return std::bit_cast<float>(uint32_t{p->bits} << 16); }

LF_INLINE void Store(float value, float* p) { *p = value; }

// To nearest, ties to even; NaN stays NaN.
LF_INLINE void Store(float value, Bf16* p) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  p->bits = static_cast<uint16_t>(value != value ? 0x7fc0u : rounded);
}

template <typename T>
LF_INLINE float Rounded(float value) {
  T stored;
  Store(value, &stored);
  return Load(&stored);
}

// exp for x <= 88, relative error below 2e-7; 0 below -87. Range reduction by
// ln 2 in two parts, then the series to x^6 on |x| <= 0.35. NaN gives NaN.
LF_INLINE float Exp(float x) {
  const float bounded = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  // Adding 1.5 * 2^23 rounds to an integer, in the low bits of the sum.
  const float shifted = bounded * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) - 0x4b400000u) << 23;
  const float value = std::bit_cast<float>(std::bit_cast<uint32_t>(p) + exponent);
  return x < -87.0f ? 0.0f : value;
}

}  // namespace
}  // namespace latentforge::model::LF_ISA
