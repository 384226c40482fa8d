// Toy MLPs and their calibration tokens, in chunks of uneven length.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/worker/factorize/reference.h"
#include "worker/low_rank/mlp.h"

namespace latentforge::low_rank {

using factorize::MaxAbs;
using factorize::RandomMatrix;

struct MlpProblem {
  Mlp mlp;
  at::Tensor original;    // [n, d]
  at::Tensor compressed;  // [n, d]; undefined: the same
  int64_t chunk_tokens = 0;

  int64_t chunks() const { return (original.size(0) + chunk_tokens - 1) / chunk_tokens; }
  // What the compressed MLP sees.
  const at::Tensor& seen() const { return compressed.defined() ? compressed : original; }
  // The problem must outlive them.
  MlpTokens tokens() const {
    return {.chunks = chunks(), .read = [this](int64_t chunk) -> absl::StatusOr<MlpRows> {
              const int64_t start = chunk * chunk_tokens;
              const int64_t size = std::min(chunk_tokens, original.size(0) - start);
              MlpRows rows{.original = original.narrow(0, start, size)};
              if (compressed.defined()) rows.compressed = compressed.narrow(0, start, size);
              return rows;
            }};
  }
};

struct MlpShape {
  Activation activation = Activation::kRelu;
  int64_t d = 8;
  int64_t f = 20;
  int64_t n = 100;
  bool biases = true;
  bool drifted = false;  // compressed layers before the MLP moved its inputs
};

inline at::Tensor RandomVector(int64_t size, uint64_t seed) {
  return RandomMatrix(1, size, seed).squeeze(0);
}

// Inputs with loud directions, neurons that matter and fire unevenly.
inline MlpProblem MakeMlpProblem(const MlpShape& shape, uint64_t seed) {
  const auto [activation, d, f, n, biases, drifted] = shape;
  const at::Tensor mix = RandomMatrix(d, d, seed) * at::logspace(0.3, -0.7, d, 10, at::kDouble);
  const at::Tensor loudness = at::logspace(0.5, -1, f, 10, at::kDouble);
  MlpProblem p;
  p.original =
      at::matmul(RandomMatrix(n, d, seed + 1), mix.t()) + 0.3 * RandomMatrix(1, d, seed + 2);
  p.mlp.activation = activation;
  p.mlp.up.weight = RandomMatrix(f, d, seed + 3) / std::sqrt(double(d));
  p.mlp.down.weight = RandomMatrix(d, f, seed + 4) * loudness / std::sqrt(double(f));
  if (activation == Activation::kSwiGlu) {
    p.mlp.gate.weight = RandomMatrix(f, d, seed + 5) / std::sqrt(double(d));
  }
  if (biases) {
    p.mlp.up.bias = RandomVector(f, seed + 6);
    p.mlp.down.bias = RandomVector(d, seed + 7);
    if (activation == Activation::kSwiGlu) p.mlp.gate.bias = RandomVector(f, seed + 8);
  }
  if (drifted) p.compressed = p.original + 0.1 * RandomMatrix(n, d, seed + 9);
  p.chunk_tokens = 37;
  return p;
}

inline LowRank RandomLowRank(int64_t out, int64_t in, int64_t rank, bool bias, uint64_t seed) {
  return {.down = RandomMatrix(rank, in, seed) / std::sqrt(double(in)),
          .up = RandomMatrix(out, rank, seed + 1) / std::sqrt(double(rank)),
          .bias = bias ? RandomVector(out, seed + 2) : at::Tensor()};
}

inline LowRankMlp RandomLowRankMlp(const MlpShape& shape, int64_t rank, uint64_t seed) {
  LowRankMlp mlp{.activation = shape.activation,
                 .up = RandomLowRank(shape.f, shape.d, rank, shape.biases, seed)};
  if (shape.activation == Activation::kSwiGlu) {
    mlp.gate = RandomLowRank(shape.f, shape.d, rank, shape.biases, seed + 10);
  }
  mlp.down = RandomLowRank(shape.d, shape.f, rank, shape.biases, seed + 20);
  return mlp;
}

inline at::Tensor DenseWeight(const LowRank& map) { return at::matmul(map.up, map.down); }

inline Linear Dense(const LowRank& map) { return {.weight = DenseWeight(map), .bias = map.bias}; }

// One value, as the definitions say, in scalar arithmetic.
inline double SlowActivation(Activation activation, double up, double gate) {
  if (activation == Activation::kRelu) return up > 0 ? up : 0;
  return gate / (1 + std::exp(-gate)) * up;
}

}  // namespace latentforge::low_rank
