// Causal attention with grouped heads and its gradients, on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace latentforge::model {

// All tensors here are fp32 or bf16 on the CPU (HasRowKernels), of one type, strided, with
// a contiguous last dimension. Scores, sums and the results before they are stored are in
// fp32; with bf16, what the softmax and its gradient give is rounded to bf16 before it is
// multiplied on. Blocks of scores as in Dao (2023), "FlashAttention-2": no memory grows
// with T². The bits of the results do not depend on the number of threads. LibTorch's
// exceptions pass through.

struct AttentionResult {
  at::Tensor out;  // [T, heads, d]
  // fp32, [heads, T]: the probability of a key is share * exp((q k - maximum) / sqrt(d)).
  at::Tensor maximum;
  at::Tensor share;
};

// What CausalAttention (attention.h) gives for q [T, heads, d], k and v [T, kv_heads, d],
// and what AttentionGradient needs of its softmax.
AttentionResult AttentionForward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 std::optional<int64_t> window);

// The same without the softmax, written to `out` [T, heads, d].
void AttentionForward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      std::optional<int64_t> window, const at::Tensor& out);

struct AttentionGradients {
  at::Tensor q;  // [T, heads, d]
  at::Tensor k;  // [T, kv_heads, d]
  at::Tensor v;  // [T, kv_heads, d]
};

// The gradients of a loss by q, k and v, from the one by `result.out`. Takes up to
// T * d * 64 bytes beside its results, and as much again for each further eight threads.
AttentionGradients AttentionGradient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     std::optional<int64_t> window, const AttentionResult& result,
                                     const at::Tensor& out_gradient);

}  // namespace latentforge::model
