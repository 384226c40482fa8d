// The small operations between the matrix products of a model: one pass over memory on a
// CPU, LibTorch's own operations elsewhere.
#pragma once

#include <ATen/core/Tensor.h>

namespace latentforge::model {

// out = x / sqrt(mean(x²) + epsilon), rounded to x's type, times weight, over the last
// dimension, in fp32 (transformers, LlamaRMSNorm). x and out are [rows, width] with a
// contiguous last dimension; `out` may be x.
void RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon, const at::Tensor& out);

// out = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias over the last dimension, in fp32 at
// least. x is [..., width]; `out` may be x.
void LayerNorm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
               double epsilon, const at::Tensor& out);

// out = silu(g) * u for gate_up = [g, u], [rows, 2F] -> [rows, F].
void SiluMultiply(const at::Tensor& gate_up, const at::Tensor& out);

// log(sum(exp(logits))) of each row of [rows, width], [rows] fp64; a NaN is kept.
at::Tensor LogSumExp(const at::Tensor& logits);

}  // namespace latentforge::model
