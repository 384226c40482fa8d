// The small operations between the matrix products of a decoder layer, for autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "worker/model/rope.h"
#include "worker/model/weights.h"

namespace latentforge::model {

// Each is one node of the graph that keeps its input and output at most: fp32 and bf16 on the CPU
// pass over memory once on either way, all else is a chain of LibTorch's operations.
// Weights and tables are constants; a weight that requires a gradient is an error.
// LibTorch's exceptions pass through.

// RmsNorm of x [..., width].
at::Tensor RmsNormGraph(const at::Tensor& x, const at::Tensor& weight, double epsilon);

// Any norm of x [..., width]; x itself where `norm` is undefined.
at::Tensor NormGraph(const at::Tensor& x, const Norm& norm, double epsilon);

// silu(g) * u for gate_up = [g, u], [rows, 2F] -> [rows, F].
at::Tensor SiluMultiplyGraph(const at::Tensor& gate_up);

// ApplyRope on a copy of x [rows, heads * head_dim]; `back` is InverseRope(table).
at::Tensor RopeGraph(const at::Tensor& x, int64_t length, const RopeTable& table,
                     const RopeTable& back);

// CausalAttention (attention.h) of q [T, heads, d], k and v [T, kv_heads, d]:
// [T, heads * d]. Off the CPU and in other types, memory grows with T² with a window.
at::Tensor AttentionGraph(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          std::optional<int64_t> window);

// The table that rotates back, which is the gradient of a rotation.
RopeTable InverseRope(const RopeTable& table);

}  // namespace latentforge::model
