// What the two directions of attention_gradient.h share: matrix products, memory, and
// tensors by blocks.
#pragma once

#include <ATen/ATen.h>
#include <ATen/native/CPUBlas.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>

#include "worker/model/attention_blocks.h"
#include "worker/model/attention_functions.h"
#include "worker/model/parallel.h"
#include "worker/model/row_functions.h"
#include "worker/model/tensor_rows.h"

namespace latentforge::model::attention {

// The functions for this processor.
template <typename T>
const AttentionFunctions<T>& Best() {
#if defined(__x86_64__)
  const Isa isa = BestIsa();
  if (isa == Isa::kV4) return Choose<T>(x86_v4::kFloatAttention, x86_v4::kBf16Attention);
  if (isa == Isa::kV3) return Choose<T>(x86_v3::kFloatAttention, x86_v3::kBf16Attention);
#endif
  return Choose<T>(generic::kFloatAttention, generic::kBf16Attention);
}

// Calls f(E{}, T{}) with the type of x's elements and that of the products: LibTorch
// multiplies pairs of bf16 where the processor does; elsewhere products of fp32 are faster.
template <typename F>
void WithProductType(const at::Tensor& x, const F& f) {
  if (x.scalar_type() == at::kFloat) {
    f(float{}, float{});
  } else if (at::native::cpublas::could_pack(at::kBFloat16)) {
    f(Bf16{}, Bf16{});
  } else {
    f(Bf16{}, float{});
  }
}

enum class Into { kSet, kAdd };

// c [m, n] = or += a [m, k] b [k, n], on this thread; b is a right-hand matrix.
inline void Product(int64_t m, int64_t n, int64_t k, const float* a, const float* b, Into into,
                    float* c) {
  at::native::cpublas::brgemm(m, n, k, k, n, n, into == Into::kAdd, a, b, c, /*is_vnni=*/false);
}

inline void Product(int64_t m, int64_t n, int64_t k, const Bf16* a, const Bf16* b, Into into,
                    float* c) {
  static_assert(sizeof(Bf16) == sizeof(at::BFloat16));
  at::native::cpublas::brgemm(m, n, k, k, n, n, into == Into::kAdd,
                              reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c, /*is_vnni=*/true);
}

// Uninitialised memory that is aligned for vectors.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t count)
      : memory_(at::empty({count}, std::is_same_v<T, float> ? at::kFloat : at::kBFloat16)),
        data_(Elements<T>(memory_)) {}
  T* at(int64_t offset) const { return data_ + offset; }
  T* data() const { return data_; }

 private:
  at::Tensor memory_;
  T* data_;
};

// Calls f(i, scratch) for i below `count` on LibTorch's threads, each with a Scratch of
// its own that `make` gives. T is the type of the products.
template <typename T, typename Make, typename F>
void Spread(int64_t count, const Make& make, const F& f) {
  // Gives back what a thread's products of bf16 hold of the processor.
  struct Release {
    ~Release() { at::native::cpublas::brgemm_release(std::is_same_v<T, Bf16>); }
  };
  ParallelFor(count, [&](int64_t begin, int64_t end) {
    const auto scratch = make();
    const Release release;
    for (int64_t i = begin; i < end; ++i) f(i, scratch);
  });
}

inline void Widen(const float* x, int64_t width, float* out) {
  std::memcpy(out, x, static_cast<size_t>(width) * sizeof(float));
}

inline void Widen(const Bf16* x, int64_t width, Bf16* out) {
  std::memcpy(out, x, static_cast<size_t>(width) * sizeof(Bf16));
}

inline void Widen(const Bf16* x, int64_t width, float* out) {
  for (int64_t i = 0; i < width; ++i) out[i] = std::bit_cast<float>(uint32_t{x[i].bits} << 16);
}

// x [T, heads, d] by position and head.
template <typename E>
class Heads {
 public:
  explicit Heads(const at::Tensor& x)
      : data_(Elements<E>(x)),
        length_(x.size(0)),
        width_(x.size(2)),
        stride_(x.stride(0)),
        head_stride_(x.stride(1)) {}

  E* at(int64_t position, int64_t head) const {
    return data_ + position * stride_ + head * head_stride_;
  }

  // `count` rows from a position on, padded with zeros: [count, depth].
  template <typename T>
  void Load(int64_t head, int64_t position, int64_t count, int64_t depth, T* out) const {
    for (int64_t i = 0; i < count; ++i, out += depth) {
      const int64_t width = position + i < length_ ? width_ : 0;
      if (width != 0) Widen(at(position + i, head), width, out);
      std::memset(out + width, 0, static_cast<size_t>(depth - width) * sizeof(T));
    }
  }

  // A block of queries of a group of heads: [columns, depth].
  template <typename T>
  void LoadGroup(const AttentionBlocks& blocks, int64_t kv_head, int64_t block, T* out) const {
    for (int64_t h = 0; h < blocks.group; ++h) {
      Load(kv_head * blocks.group + h, block * blocks.queries, blocks.queries, blocks.depth,
           out + h * blocks.queries * blocks.depth);
    }
  }

 private:
  E* data_;
  int64_t length_, width_, stride_, head_stride_;
};

inline void CheckAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           std::optional<int64_t> window) {
  for (const at::Tensor* const x : {&q, &k, &v}) {
    TORCH_CHECK(HasRowKernels(*x) && x->scalar_type() == q.scalar_type() && x->dim() == 3 &&
                    x->size(0) == q.size(0) && x->size(2) == q.size(2) && x->stride(2) == 1,
                "attention takes rows of fp32 or bf16 on the CPU");
  }
  TORCH_CHECK(q.size(1) % k.size(1) == 0 && v.size(1) == k.size(1) && window.value_or(1) >= 1,
              "the heads or the window of attention do not fit");
}

inline AttentionBlocks BlocksOf(const at::Tensor& q, const at::Tensor& k,
                                std::optional<int64_t> window) {
  return AttentionBlocks::Make(q.size(0), window.value_or(q.size(0)), q.size(1) / k.size(1),
                               q.size(2));
}

inline float ScoreScale(const at::Tensor& q) {
  return 1.0f / std::sqrt(static_cast<float>(q.size(2)));
}

}  // namespace latentforge::model::attention
