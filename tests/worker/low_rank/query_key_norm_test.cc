#include "worker/low_rank/query_key_norm.h"

#include <gtest/gtest.h>

#include "tests/worker/low_rank/query_key_reference.h"

namespace latentforge::low_rank {
namespace {

constexpr double kEpsilon = 1e-6;

struct NormedToy {
  QueryKeyToy plain;  // the same projections without the norm
  QueryKeyToy normed;
};

NormedToy MakeNormedToy(const QueryKeyShape& shape, uint64_t seed) {
  NormedToy toy;
  toy.plain = MakeQueryKeyToy(shape, seed);
  // Heads of different sizes, which a norm makes alike.
  QueryKeyProblem& p = toy.plain.problem;
  const at::Tensor sizes = at::pow(3.0, RandomMatrix(shape.heads, 1, seed + 20));
  p.query.weight = p.query.weight * sizes.repeat_interleave(shape.head_dim, 0);
  toy.normed = toy.plain;
  QueryKeyNorm norm;
  norm.query_gain = RandomMatrix(1, shape.head_dim, seed + 21).abs()[0] + 0.3;
  norm.key_gain = RandomMatrix(1, shape.head_dim, seed + 22).abs()[0] + 0.3;
  norm.query = *MeasureNormedHeads(p.query, norm.query_gain, kEpsilon, toy.plain.x);
  norm.key = *MeasureNormedHeads(p.key, norm.key_gain, kEpsilon, toy.plain.x);
  toy.normed.problem.norm = norm;
  return toy;
}

// One head of one token at a time: gain o y / rms(y).
at::Tensor Normed(const at::Tensor& y, const at::Tensor& gain) {
  const int64_t d = gain.size(0);
  at::Tensor result = at::empty_like(y);
  for (int64_t head = 0; head < y.size(0) / d; ++head) {
    for (int64_t token = 0; token < y.size(1); ++token) {
      const at::Tensor one = Head(y, head, d).select(1, token);
      Head(result, head, d).select(1, token) =
          gain * one / at::sqrt(one.square().mean() + kEpsilon);
    }
  }
  return result;
}

// The mean over pairs and lags of sum_i (score_i - score_i')^2 of normalised heads, at some lags.
double NormedPairLoss(const QueryKeyToy& toy, const JointQueryKey& joint) {
  const QueryKeyProblem& p = toy.problem;
  const at::Tensor q = Normed(Apply(p.query, toy.x), p.norm->query_gain);
  const at::Tensor k = Normed(Apply(p.key, toy.x), p.norm->key_gain);
  const at::Tensor q2 = Normed(Apply(AsLinear(joint.query), toy.x), p.norm->query_gain);
  const at::Tensor k2 = Normed(Apply(AsLinear(joint.key), toy.x), p.norm->key_gain);
  double loss = 0;
  for (int64_t lag = 0; lag < toy.weights.size(0); ++lag) {
    for (int64_t head = 0; head < p.heads; ++head) {
      const at::Tensor error = Scores(toy, q, k, head, lag) - Scores(toy, q2, k2, head, lag);
      loss += toy.weights[lag].item<double>() * error.square().mean().item<double>();
    }
  }
  return loss;
}

TEST(QueryKeyNormTest, MomentsAreThoseOfEachHeadsTokens) {
  const NormedToy toy = MakeNormedToy({.lags = 3}, 300);
  const QueryKeyProblem& p = toy.normed.problem;
  const at::Tensor y = Apply(p.query, toy.normed.x);
  const at::Tensor normed = Normed(y, p.norm->query_gain);
  const at::Tensor squares = toy.normed.x.square().sum(0);
  for (int64_t head = 0; head < p.heads; ++head) {
    const at::Tensor one = Head(normed, head, 6);
    EXPECT_LT(MaxAbs(p.norm->query.second[head] - at::matmul(one, one.t()) / 80.0), 1e-13);
    const at::Tensor mean_square = Head(y, head, 6).square().mean(0) + kEpsilon;
    const double omega = ((squares / mean_square).mean() / squares.mean()).item<double>();
    EXPECT_NEAR(p.norm->query.loudness[head].item<double>(), omega, 1e-13 * omega);
  }
}

// sum_i omega_i ((g_q o dq_m)^T R k_n^)^2 + omega_g (q_m^^T R (g_k o dk_n))^2, pair by pair and lag
// by lag, is what was minimised, and the tails of the spectra.
TEST(QueryKeyNormTest, TheLossIsTheFirstOrderErrorOfPairs) {
  for (const bool centred : {true, false}) {
    const NormedToy toy = MakeNormedToy({.bias = centred, .lags = 5}, 310);
    const QueryKeyProblem& p = toy.normed.problem;
    const TuckerRanks ranks{.left = 6, .right = 4};
    const QueryKeyOptions options{.centred = centred};
    const JointQueryKey joint = Compress(toy.normed, ranks, options);
    const auto gained = [&](const Linear& map, const LowRank& factors, const at::Tensor& gain) {
      const at::Tensor error = Apply(map, toy.normed.x) - Apply(AsLinear(factors), toy.normed.x);
      return error * gain.repeat({map.weight.size(0) / 6}).unsqueeze(1);
    };
    const at::Tensor dq = gained(p.query, joint.query, p.norm->query_gain);
    const at::Tensor dk = gained(p.key, joint.key, p.norm->key_gain);
    const at::Tensor q = Normed(Apply(p.query, toy.normed.x), p.norm->query_gain);
    const at::Tensor k = Normed(Apply(p.key, toy.normed.x), p.norm->key_gain);
    double loss = 0;
    for (int64_t lag = 0; lag < 5; ++lag) {
      for (int64_t head = 0; head < p.heads; ++head) {
        const at::Tensor of_query = Scores(toy.normed, dq, k, head, lag).square().mean();
        const at::Tensor of_key = Scores(toy.normed, q, dk, head, lag).square().mean();
        const at::Tensor sum =
            p.norm->query.loudness[head] * of_query + p.norm->key.loudness[head / 2] * of_key;
        loss += (toy.normed.weights[lag] * sum).item<double>();
      }
    }
    const double tolerance = 1e-10 * joint.loss_of_nothing;
    EXPECT_NEAR(joint.loss, loss, tolerance);
    ASSERT_EQ(joint.losses.size(), 1u);
    EXPECT_NEAR(joint.losses[0], loss, tolerance);
    EXPECT_LT(joint.loss, *joint.local_loss);
    const auto spectra = QueryKeySpectra(p, options);
    ASSERT_TRUE(spectra.ok()) << spectra.status();
    EXPECT_NEAR(spectra->AtMost(ranks), loss, tolerance);
  }
}

// The scores themselves, normalised and turned: the metrics of normalised heads beat both the local
// factors and joint ones that ignore the norm.
TEST(QueryKeyNormTest, NormalisedScoresAreKeptBest) {
  for (uint64_t seed = 320; seed < 324; ++seed) {
    const NormedToy toy = MakeNormedToy({.bias = false, .lags = 12}, seed);
    const TuckerRanks ranks{.left = 14, .right = 9};
    const QueryKeyOptions raw{.centred = false};
    const JointQueryKey aware = Compress(toy.normed, ranks, raw);
    const JointQueryKey ignorant = Compress(toy.plain, ranks, raw);
    QueryKeyOptions local_only = raw;
    local_only.solver = {.start = TuckerStart::kLocal, .sweeps = 0};
    const JointQueryKey local = Compress(toy.plain, ranks, local_only);
    const double error = NormedPairLoss(toy.normed, aware);
    EXPECT_LT(error, NormedPairLoss(toy.normed, ignorant));
    EXPECT_LT(error, NormedPairLoss(toy.normed, local));
  }
}

// Oracle 7 with a norm: full ranks change no score.
TEST(QueryKeyNormTest, FullRanksAreExact) {
  const NormedToy toy = MakeNormedToy({.lags = 4}, 330);
  const JointQueryKey joint = Compress(toy.normed, {.left = 24, .right = 12});
  EXPECT_LT(NormedPairLoss(toy.normed, joint), 1e-18);
}

TEST(QueryKeyNormTest, RefusesWrongArguments) {
  using enum absl::StatusCode;
  const NormedToy toy = MakeNormedToy({}, 340);
  const QueryKeyProblem& good = toy.normed.problem;
  const auto code = [](const QueryKeyProblem& p) {
    return CompressQueryKey(p, {.left = 5, .right = 4}, {}).status().code();
  };
  EXPECT_EQ(code(good), kOk);
  QueryKeyProblem p = good;
  p.norm->query_gain = at::ones({5}, at::kDouble);
  EXPECT_EQ(code(p), kInvalidArgument);
  p = good;
  p.norm->key = p.norm->query;
  EXPECT_EQ(code(p), kInvalidArgument);
  p = good;
  p.norm->key.loudness = p.norm->key.loudness / 0.0;
  EXPECT_EQ(code(p), kInternal);

  const at::Tensor gain = good.norm->query_gain;
  EXPECT_EQ(
      MeasureNormedHeads(good.query, at::ones({5}, at::kDouble), 0, toy.plain.x).status().message(),
      "projection has 24 outputs, its heads' gain 5 and x 80 tokens, expected whole heads and "
      "at least one token");
  EXPECT_EQ(MeasureNormedHeads(good.query, gain, 0, toy.plain.x.t()).status().code(),
            kInvalidArgument);
  const Linear silent{.weight = 0 * good.query.weight, .bias = {}};
  EXPECT_EQ(MeasureNormedHeads(silent, gain, 0, toy.plain.x).status().code(), kInternal);
  EXPECT_TRUE(MeasureNormedHeads(silent, gain, kEpsilon, toy.plain.x).ok());
}

}  // namespace
}  // namespace latentforge::low_rank
