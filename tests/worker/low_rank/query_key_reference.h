// Toys for the joint compression of queries and keys, and its objective token by token.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <utility>

#include "tests/worker/low_rank/joint_reference.h"
#include "worker/low_rank/joint_query_key.h"

namespace latentforge::low_rank {

struct QueryKeyShape {
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t head_dim = 6;
  int64_t channels = 30;
  int64_t tokens = 80;
  bool bias = true;
  int64_t lags = 0;  // causal RoPE over so many positions; 0: no RoPE
};

struct QueryKeyToy {
  QueryKeyProblem problem;
  at::Tensor x;        // [D, n]
  at::Tensor turns;    // frequencies; undefined without RoPE
  at::Tensor weights;  // of lags
};

inline QueryKeyToy MakeQueryKeyToy(const QueryKeyShape& shape, uint64_t seed) {
  QueryKeyToy toy;
  toy.x = ToyInputs(shape.channels, shape.tokens, seed);
  QueryKeyProblem& p = toy.problem;
  p.heads = shape.heads;
  p.kv_heads = shape.kv_heads;
  p.head_dim = shape.head_dim;
  p.input = MomentsOf(toy.x);
  const int64_t query = shape.heads * shape.head_dim;
  const int64_t key = shape.kv_heads * shape.head_dim;
  p.query.weight = RandomMatrix(query, shape.channels, seed + 10);
  p.key.weight = RandomMatrix(key, shape.channels, seed + 11);
  if (shape.bias) {
    p.query.bias = RandomMatrix(1, query, seed + 12)[0];
    p.key.bias = RandomMatrix(1, key, seed + 13)[0];
  }
  if (shape.lags > 0) {
    toy.turns = Frequencies(shape.head_dim);
    toy.weights = CausalLagWeights(shape.lags);
    p.rope = *RopeMetric::Causal(toy.turns, shape.lags);
  }
  return toy;
}

// Scores of head i for all pairs of tokens, q_m^T R_{-lag} k_n, [n, n].
inline at::Tensor Scores(const QueryKeyToy& toy, const at::Tensor& queries, const at::Tensor& keys,
                         int64_t head, int64_t lag) {
  const QueryKeyProblem& p = toy.problem;
  const at::Tensor q = Head(queries, head, p.head_dim);
  at::Tensor k = Head(keys, head / (p.heads / p.kv_heads), p.head_dim);
  if (toy.turns.defined()) k = at::matmul(Rotation(toy.turns, -lag), k);
  return at::matmul(q.t(), k);
}

// The mean over pairs of tokens and lags of sum_i (score_i - score_i')^2; `rows` takes each row's
// mean error away.
inline double PairLoss(const QueryKeyToy& toy, const Linear& query, const Linear& key, bool rows) {
  const QueryKeyProblem& p = toy.problem;
  const at::Tensor weights = toy.weights.defined() ? toy.weights : at::ones({1}, at::kDouble);
  double loss = 0;
  for (int64_t lag = 0; lag < weights.size(0); ++lag) {
    for (int64_t head = 0; head < p.heads; ++head) {
      at::Tensor error = Scores(toy, Apply(p.query, toy.x), Apply(p.key, toy.x), head, lag) -
                         Scores(toy, Apply(query, toy.x), Apply(key, toy.x), head, lag);
      if (rows) error = error - error.mean(1, /*keepdim=*/true);
      loss += weights[lag].item<double>() * error.square().mean().item<double>();
    }
  }
  return loss;
}

inline double PairLoss(const QueryKeyToy& toy, const JointQueryKey& joint, bool rows) {
  return PairLoss(toy, AsLinear(joint.query), AsLinear(joint.key), rows);
}

inline JointQueryKey Compress(const QueryKeyToy& toy, const TuckerRanks& ranks,
                              const QueryKeyOptions& options = {}) {
  auto joint = CompressQueryKey(toy.problem, ranks, options);
  EXPECT_TRUE(joint.ok()) << joint.status();
  return *std::move(joint);
}

}  // namespace latentforge::low_rank
