// Rotary position embedding, half-split layout, as Hugging Face computes it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "checkpoint/model_config.h"

namespace latentforge::model {

// [head_dim / 2] in fp32 on the CPU: theta^(-2j / head_dim), for llama3 scaling
// changed by wavelength (transformers, _compute_llama3_parameters).
at::Tensor InverseFrequencies(const checkpoint::ModelConfig& config);

// cos and sin of position * frequency, each [length, head_dim / 2].
struct RopeTable {
  at::Tensor cos;
  at::Tensor sin;
};

// Positions [0, length). Angles and functions are computed in fp32, then rounded
// to `dtype`.
RopeTable MakeRopeTable(const checkpoint::ModelConfig& config, int64_t length, at::Device device,
                        at::ScalarType dtype);

// Rotates x [rows, heads * head_dim] in place; rows are sequences of `length` tokens, so
// the position of row i is i mod length. For the two halves a, b of each head:
// (a, b) -> (a cos - b sin, b cos + a sin). Rows may be strided.
void ApplyRope(const at::Tensor& x, int64_t length, const RopeTable& table);

}  // namespace latentforge::model
