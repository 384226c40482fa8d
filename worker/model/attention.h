// Causal attention with grouped heads and an optional sliding window.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace latentforge::model {

// softmax(q kᵀ / sqrt(d)) v for one sequence, written to `out` [T, heads * d].
// q [T, heads, d], k and v [T, kv_heads, d], strided, last dimension contiguous;
// query head h uses KV head h / (heads / kv_heads). Position i sees positions
// i - window + 1 to i, without a window 0 to i. Memory grows with T, not with T².
void CausalAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     std::optional<int64_t> window, const at::Tensor& out);

// [T, heads, d] as [kv_heads, group, T, d], with KV heads as the batch: the heads
// of a group then share their keys by stride 0 instead of by copies.
at::Tensor ByGroup(const at::Tensor& x, int64_t kv_heads, int64_t group);

}  // namespace latentforge::model
