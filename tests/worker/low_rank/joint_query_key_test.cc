#include "worker/low_rank/joint_query_key.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "tests/worker/low_rank/query_key_reference.h"

namespace latentforge::low_rank {
namespace {

constexpr QueryKeyShape kFamilies[] = {
    {.heads = 4, .kv_heads = 4},                               // MHA
    {.heads = 4, .kv_heads = 2, .bias = false},                // GQA
    {.heads = 4, .kv_heads = 1, .lags = 7},                    // MQA
    {.heads = 4, .kv_heads = 2, .lags = 40},                   // GQA
    {.heads = 4, .kv_heads = 4, .bias = false, .lags = 40},    // MHA
    {.heads = 6, .kv_heads = 2, .channels = 20, .lags = 7},    // more outputs than channels
    {.heads = 4, .kv_heads = 2, .tokens = 13, .lags = 7},      // fewer tokens than channels
    {.heads = 4, .kv_heads = 2, .channels = 20, .tokens = 9},  // both
};

// Of the quantities compared, losses of 1 to 1e5 by sums and by factors: products of fp64 of
// condition numbers below 1e4.
constexpr double kTolerance = 1e-10;

// Oracle 6: monotone, the start's own loss included, and never above the local solution's; the loss
// from moments is the one of explicit pairs of tokens.
TEST(JointQueryKeyTest, LossesFallAndAreThoseOfPairs) {
  for (const bool centred : {true, false}) {
    for (QueryKeyShape shape : kFamilies) {
      shape.bias = shape.bias && centred;
      const QueryKeyToy toy = MakeQueryKeyToy(shape, 100);
      const JointQueryKey joint =
          Compress(toy, {.left = 5, .right = 4}, {.centred = centred, .solver = {.tolerance = 0}});
      const double all = joint.loss_of_nothing;
      for (size_t step = 1; step < joint.losses.size(); ++step) {
        EXPECT_LE(joint.losses[step], joint.losses[step - 1] + 1e-13 * all);
      }
      const bool rows = centred && shape.lags == 0;
      EXPECT_NEAR(joint.loss, PairLoss(toy, joint, rows), kTolerance * all);
      EXPECT_NEAR(joint.losses.back(), joint.loss, kTolerance * all);
      ASSERT_TRUE(joint.local_loss.has_value());
      EXPECT_LT(joint.loss, *joint.local_loss);
    }
  }
}

// Oracle 6: with the local start alone.
TEST(JointQueryKeyTest, FromTheLocalSolutionItOnlyGetsBetter) {
  for (const QueryKeyShape& shape : kFamilies) {
    const QueryKeyToy toy = MakeQueryKeyToy(shape, 110);
    const JointQueryKey joint =
        Compress(toy, {.left = 4, .right = 4}, {.solver = {.start = TuckerStart::kLocal}});
    EXPECT_NEAR(joint.losses.front(), *joint.local_loss, kTolerance * joint.loss_of_nothing);
    EXPECT_LT(joint.losses.back(), joint.losses.front());
  }
}

// Either start can end ahead, if only by what the tolerance leaves; both is the better of the two.
TEST(JointQueryKeyTest, BothStartsKeepTheLowerLoss) {
  const TuckerRanks ranks{.left = 5, .right = 4};
  int64_t from_hosvd = 0;
  int64_t from_local = 0;
  for (uint64_t seed = 500; seed < 510; ++seed) {
    const QueryKeyToy toy = MakeQueryKeyToy({.lags = 7}, seed);
    const auto run = [&](TuckerStart start) {
      return Compress(toy, ranks, {.solver = {.start = start}});
    };
    const JointQueryKey hosvd = run(TuckerStart::kHosvd);
    const JointQueryKey local = run(TuckerStart::kLocal);
    const JointQueryKey both = run(TuckerStart::kBoth);
    EXPECT_EQ(both.losses,
              hosvd.losses.back() <= local.losses.back() ? hosvd.losses : local.losses);
    ++(hosvd.losses.back() <= local.losses.back() ? from_hosvd : from_local);
    EXPECT_FALSE(hosvd.local_loss.has_value());
    EXPECT_TRUE(both.local_loss.has_value());
  }
  EXPECT_GT(from_hosvd, 0);
  EXPECT_GT(from_local, 0);
}

// The local loss is that of each side's root-covariance SVD, taken as the definition says.
TEST(JointQueryKeyTest, TheLocalLossIsThatOfTwoSvds) {
  const QueryKeyToy toy = MakeQueryKeyToy({.lags = 9}, 115);
  const InputMoments& input = toy.problem.input;
  const at::Tensor centred = input.covariance - at::outer(input.mean, input.mean);
  const auto local = [&](const Linear& map, int64_t rank) {
    const at::Tensor output = at::matmul(at::matmul(map.weight, centred), map.weight.t());
    const at::Tensor rows = LeadingRows(output, rank);
    const at::Tensor weight = at::matmul(at::matmul(rows.t(), rows), map.weight);
    return Linear{.weight = weight, .bias = map.bias + at::mv(map.weight - weight, input.mean)};
  };
  const JointQueryKey joint = Compress(toy, {.left = 5, .right = 3});
  EXPECT_NEAR(*joint.local_loss,
              PairLoss(toy, local(toy.problem.query, 5), local(toy.problem.key, 3), false),
              kTolerance * joint.loss_of_nothing);
}

// Oracle 6: sum ||G_i||^2 - sum ||H_i||^2 = sum ||G_i - A_q'^T H_i A_k'||^2, equation 14 by
// explicit D x D matrices, and ||X^T Delta X||^2 = tr(Delta X X^T Delta^T X X^T).
TEST(JointQueryKeyTest, TheLossIsEquation14) {
  const QueryKeyToy toy = MakeQueryKeyToy({.bias = false}, 120);
  const QueryKeyProblem& p = toy.problem;
  const JointQueryKey joint = Compress(toy, {.left = 6, .right = 5}, {.centred = false});
  const at::Tensor root = SymmetricRoot(p.input.covariance);
  const at::Tensor left = at::matmul(joint.query.down, root);
  const at::Tensor right = at::matmul(joint.key.down, root);
  double direct = 0;
  double whole = 0;
  double kept = 0;
  double traces = 0;
  for (int64_t head = 0; head < p.heads; ++head) {
    const int64_t group = head / 2;
    const at::Tensor g = at::matmul(at::matmul(root, Head(p.query.weight, head, 6).t()),
                                    at::matmul(Head(p.key.weight, group, 6), root));
    const at::Tensor h =
        at::matmul(Head(joint.query.up, head, 6).t(), Head(joint.key.up, group, 6));
    direct += SquaredNorm(g - at::matmul(at::matmul(left.t(), h), right));
    whole += SquaredNorm(g);
    kept += SquaredNorm(h);
    const at::Tensor delta =
        at::matmul(Head(p.query.weight, head, 6).t(), Head(p.key.weight, group, 6)) -
        at::matmul(at::matmul(joint.query.down.t(), h), joint.key.down);
    const at::Tensor& c = p.input.covariance;
    traces += at::matmul(at::matmul(delta, c), at::matmul(delta.t(), c)).trace().item<double>();
  }
  EXPECT_NEAR(joint.loss, direct, kTolerance * whole);
  EXPECT_NEAR(whole - kept, direct, kTolerance * whole);
  EXPECT_NEAR(traces, direct, kTolerance * whole);
  EXPECT_NEAR(joint.loss_of_nothing, whole, kTolerance * whole);
  EXPECT_NEAR(PairLoss(toy, joint, false), direct, kTolerance * whole);
}

// No step of any size improves a decoder or the query's bias, which are the best for their latents
// once the alternation has come to rest.
TEST(JointQueryKeyTest, DecodersAndBiasesAreTheBestForTheirLatents) {
  for (const QueryKeyShape& shape : {kFamilies[0], kFamilies[3], kFamilies[4]}) {
    const QueryKeyToy toy = MakeQueryKeyToy(shape, 125);
    const JointQueryKey joint =
        Compress(toy, {.left = 5, .right = 4}, {.solver = {.sweeps = 200, .tolerance = 1e-14}});
    for (uint64_t step = 0; step < 40; ++step) {
      const double size = std::pow(10.0, -double(step % 4));
      LowRank query = joint.query;
      LowRank key = joint.key;
      query.up = query.up + size * RandomMatrix(query.up.size(0), 5, 200 + step);
      key.up = key.up + size * RandomMatrix(key.up.size(0), 4, 300 + step);
      query.bias = query.bias + size * RandomMatrix(1, query.bias.size(0), 400 + step)[0];
      const auto loss = QueryKeyLoss(toy.problem, true, query, key);
      ASSERT_TRUE(loss.ok()) << loss.status();
      EXPECT_GE(*loss, joint.loss * (1 - 1e-9)) << "step of " << size;
    }
  }
}

// Oracle 6: rotating a head's queries with its keys, or scaling queries against keys, changes no
// score, hence neither the loss nor the compressed scores.
TEST(JointQueryKeyTest, InvariantToGaugesOfTheOriginal) {
  const QueryKeyToy toy = MakeQueryKeyToy({.heads = 3, .kv_heads = 3}, 130);
  const JointQueryKey joint = Compress(toy, {.left = 5, .right = 4});
  QueryKeyToy turned = toy;
  std::vector<at::Tensor> rotations;
  for (uint64_t head = 0; head < 3; ++head) {
    rotations.push_back(std::get<0>(at::linalg_qr(RandomMatrix(6, 6, 140 + head))));
  }
  const at::Tensor turn = at::block_diag(rotations);
  QueryKeyProblem& p = turned.problem;
  p.query = {.weight = 3 * at::matmul(turn, p.query.weight),
             .bias = 3 * at::mv(turn, p.query.bias)};
  p.key = {.weight = at::matmul(turn, p.key.weight) / 3, .bias = at::mv(turn, p.key.bias) / 3};
  const JointQueryKey other = Compress(turned, {.left = 5, .right = 4});
  EXPECT_NEAR(other.loss, joint.loss, kTolerance * joint.loss_of_nothing);
  for (int64_t head = 0; head < 3; ++head) {
    const at::Tensor a = Scores(toy, Apply(AsLinear(joint.query), toy.x),
                                Apply(AsLinear(joint.key), toy.x), head, 0);
    const at::Tensor b = Scores(turned, Apply(AsLinear(other.query), toy.x),
                                Apply(AsLinear(other.key), toy.x), head, 0);
    EXPECT_LT(MaxAbs(a - b), 1e-8 * MaxAbs(a));
  }
}

// Tokens of massive activations in one channel, as language models have them: a covariance of
// condition number 1e14, where inverses fail, changes nothing of the above.
TEST(JointQueryKeyTest, MassiveActivations) {
  QueryKeyToy toy = MakeQueryKeyToy({.lags = 7}, 145);
  toy.x.narrow(0, 3, 1).narrow(1, 0, 2).fill_(1e6);
  toy.problem.input = MomentsOf(toy.x);
  const JointQueryKey joint = Compress(toy, {.left = 6, .right = 5}, {.solver = {.tolerance = 0}});
  const double all = joint.loss_of_nothing;
  EXPECT_NEAR(joint.loss, PairLoss(toy, joint, false), kTolerance * all);
  for (size_t step = 1; step < joint.losses.size(); ++step) {
    EXPECT_LE(joint.losses[step], joint.losses[step - 1] + 1e-13 * all);
  }
  EXPECT_LT(joint.loss, *joint.local_loss);
  // The loud direction takes one latent; the loss is that of the quiet ones.
  EXPECT_LT(joint.loss, 1e-6 * all);
}

// Oracle 7: at full ranks the scores are the original ones, for inputs never seen too.
TEST(JointQueryKeyTest, FullRanksAreExact) {
  for (const QueryKeyShape& shape : kFamilies) {
    const QueryKeyToy toy = MakeQueryKeyToy(shape, 150);
    const TuckerRanks full{.left = std::min(shape.channels, shape.heads * shape.head_dim),
                           .right = std::min(shape.channels, shape.kv_heads * shape.head_dim)};
    const JointQueryKey joint = Compress(toy, full);
    EXPECT_LT(joint.loss, 1e-20 * joint.loss_of_nothing);
    const at::Tensor x = RandomMatrix(shape.channels, 10, 151);
    const int64_t far = shape.lags > 0 ? 1000 : 0;
    for (int64_t head = 0; head < shape.heads; ++head) {
      const at::Tensor a =
          Scores(toy, Apply(toy.problem.query, x), Apply(toy.problem.key, x), head, far);
      const at::Tensor b =
          Scores(toy, Apply(AsLinear(joint.query), x), Apply(AsLinear(joint.key), x), head, far);
      EXPECT_LT(MaxAbs(a - b), 1e-10 * MaxAbs(a));
    }
  }
}

// Oracle 8: at frequency 0 RoPE turns nothing. The losses differ by the rows' means alone, which
// only a model without RoPE may drop; without biases and centring they agree.
TEST(JointQueryKeyTest, FrequencyZeroIsNoRope) {
  const QueryKeyToy plain = MakeQueryKeyToy({.bias = false}, 160);
  QueryKeyToy still = plain;
  still.problem.rope = *RopeMetric::Causal(at::zeros({3}, at::kDouble), 50);
  const JointQueryKey a = Compress(plain, {.left = 5, .right = 5}, {.centred = false});
  const JointQueryKey b = Compress(still, {.left = 5, .right = 5}, {.centred = false});
  EXPECT_NEAR(a.loss, b.loss, kTolerance * a.loss_of_nothing);
  EXPECT_LT(MaxAbs(at::matmul(a.query.up, a.query.down) - at::matmul(b.query.up, b.query.down)),
            1e-8);
}

// Oracle 8: A_q' Q_i^T R K_g A_k'^T = B_i^T R B_g at every lag.
TEST(JointQueryKeyTest, OneCoreServesEveryLag) {
  const QueryKeyToy toy = MakeQueryKeyToy({.bias = false, .lags = 20}, 165);
  const QueryKeyProblem& p = toy.problem;
  const JointQueryKey joint = Compress(toy, {.left = 5, .right = 4}, {.centred = false});
  const at::Tensor root = SymmetricRoot(p.input.covariance);
  const auto rows = [&](const at::Tensor& weight) { return at::matmul(weight, root); };
  for (const int64_t lag : {0L, 1L, 17L}) {
    const at::Tensor turn = Rotation(toy.turns, -lag);
    const at::Tensor full = at::matmul(at::matmul(rows(Head(p.query.weight, 3, 6)).t(), turn),
                                       rows(Head(p.key.weight, 1, 6)));
    const at::Tensor core =
        at::matmul(at::matmul(rows(joint.query.down), full), rows(joint.key.down).t());
    const at::Tensor factors =
        at::matmul(at::matmul(Head(joint.query.up, 3, 6).t(), turn), Head(joint.key.up, 1, 6));
    EXPECT_LT(MaxAbs(core - factors), 1e-10 * MaxAbs(core));
  }
}

// 3.4: factors for position 0 alone, as the slides' objective has them, can be worse than local
// ones where RoPE turns; those for the lags that occur are better than either.
TEST(JointQueryKeyTest, IgnoringRopeCanBeWorseThanLocal) {
  const QueryKeyShape shape{.heads = 2,
                            .kv_heads = 1,
                            .head_dim = 8,
                            .channels = 24,
                            .tokens = 200,
                            .bias = false,
                            .lags = 64};
  bool worse = false;
  for (uint64_t seed = 170; seed < 180; ++seed) {
    const QueryKeyToy toy = MakeQueryKeyToy(shape, seed);
    QueryKeyToy ignorant = toy;
    ignorant.problem.rope.reset();
    const TuckerRanks ranks{.left = 5, .right = 4};
    const JointQueryKey aware = Compress(toy, ranks, {.centred = false});
    const JointQueryKey unaware = Compress(ignorant, ranks, {.centred = false});
    const double without = PairLoss(toy, unaware, false);
    EXPECT_LT(aware.loss, *aware.local_loss);
    EXPECT_LT(aware.loss, without);
    worse = worse || without > 1.02 * *aware.local_loss;
  }
  EXPECT_TRUE(worse);
}

// Oracle 9: key heads repeated for each query head are grouped-query attention.
TEST(JointQueryKeyTest, RepeatedKeyHeadsAreOneHead) {
  const QueryKeyToy grouped = MakeQueryKeyToy({.heads = 4, .kv_heads = 2, .lags = 11}, 180);
  QueryKeyToy repeated = grouped;
  QueryKeyProblem& p = repeated.problem;
  p.kv_heads = 4;
  const auto repeat = [](const at::Tensor& rows) {
    return rows.reshape({2, 6, -1}).repeat_interleave(2, 0).reshape({24, -1});
  };
  p.key = {.weight = repeat(p.key.weight), .bias = repeat(p.key.bias).squeeze(1)};
  const JointQueryKey a = Compress(grouped, {.left = 5, .right = 4});
  const JointQueryKey b = Compress(repeated, {.left = 5, .right = 4});
  EXPECT_NEAR(a.loss, b.loss, kTolerance * a.loss_of_nothing);
  EXPECT_LT(MaxAbs(a.key.down.abs() - b.key.down.abs()), 1e-7 * MaxAbs(a.key.down));
  EXPECT_LT(MaxAbs(repeat(at::matmul(a.key.up, a.key.down)) - at::matmul(b.key.up, b.key.down)),
            1e-8);
}

// Oracle 10, scores' half: a shift of all keys by a constant is nothing to softmax without RoPE,
// and no loss; with RoPE it is one.
TEST(JointQueryKeyTest, AConstantKeyCountsOnlyWithRope) {
  for (const int64_t lags : {0L, 12L}) {
    const QueryKeyToy toy = MakeQueryKeyToy({.lags = lags}, 190);
    const JointQueryKey joint = Compress(toy, {.left = 5, .right = 4});
    LowRank shifted = joint.key;
    shifted.bias = shifted.bias + 100;
    const auto loss = QueryKeyLoss(toy.problem, true, joint.query, shifted);
    ASSERT_TRUE(loss.ok()) << loss.status();
    if (lags == 0) {
      EXPECT_NEAR(*loss, joint.loss, kTolerance * joint.loss_of_nothing);
    } else {
      EXPECT_GT(*loss, 2 * joint.loss);
    }
    EXPECT_NEAR(*loss, PairLoss(toy, AsLinear(joint.query), AsLinear(shifted), lags == 0),
                kTolerance * joint.loss_of_nothing);
  }
}

TEST(JointQueryKeyTest, MeansAreKept) {
  const QueryKeyToy toy = MakeQueryKeyToy({.lags = 5}, 195);
  const JointQueryKey joint = Compress(toy, {.left = 3, .right = 3});
  const auto mean_error = [&](const Linear& map, const LowRank& factors) {
    return MaxAbs((Apply(map, toy.x) - Apply(AsLinear(factors), toy.x)).mean(1));
  };
  EXPECT_LT(mean_error(toy.problem.query, joint.query), 1e-12);
  EXPECT_LT(mean_error(toy.problem.key, joint.key), 1e-12);
}

// Every pair of ranks: the optimum that was found lies between the bounds.
TEST(JointQueryKeyTest, SpectraBoundTheLossOfEveryRank) {
  for (const QueryKeyShape& shape : {kFamilies[0], kFamilies[3], kFamilies[5]}) {
    const QueryKeyToy toy = MakeQueryKeyToy(shape, 200);
    const auto spectra = QueryKeySpectra(toy.problem, {});
    ASSERT_TRUE(spectra.ok()) << spectra.status();
    for (const int64_t left : {1, 4, 9, 20}) {
      for (const int64_t right : {1, 4, 9}) {
        const TuckerRanks ranks{.left = left, .right = right};
        const JointQueryKey joint = Compress(toy, ranks);
        const double slack = kTolerance * joint.loss_of_nothing;
        EXPECT_LE(joint.loss, spectra->AtMost(ranks) + slack);
        EXPECT_GE(joint.loss, spectra->AtLeast(ranks) - slack);
        EXPECT_LE(spectra->AtMost(ranks), 2 * spectra->AtLeast(ranks));
      }
    }
    EXPECT_EQ(spectra->AtMost({.left = 99, .right = 99}), 0);
  }
}

// Factors for C + lambda I: the loss minimised is the one of that C, where its identities hold; the
// loss reported is the one of C.
TEST(JointQueryKeyTest, DampingMinimisesOnTheDampedMoments) {
  const QueryKeyToy toy = MakeQueryKeyToy({.tokens = 13, .lags = 6}, 210);
  const double damping = 0.05;
  QueryKeyToy damped = toy;
  at::Tensor covariance = toy.problem.input.covariance.clone();
  covariance.diagonal().add_(damping * covariance.diagonal().mean().item<double>());
  damped.problem.input.covariance = covariance;
  const TuckerRanks ranks{.left = 5, .right = 4};
  const JointQueryKey a = Compress(toy, ranks, {.damping = damping});
  const JointQueryKey b = Compress(damped, ranks);
  EXPECT_NEAR(a.losses.back(), b.loss, kTolerance * b.loss_of_nothing);
  EXPECT_NEAR(a.loss, PairLoss(toy, a, false), kTolerance * a.loss_of_nothing);
  EXPECT_LT(a.loss, 0.99 * a.losses.back());
}

TEST(JointQueryKeyTest, IsDeterministic) {
  const QueryKeyToy toy = MakeQueryKeyToy({.lags = 6}, 220);
  const JointQueryKey a = Compress(toy, {.left = 5, .right = 4});
  const JointQueryKey b = Compress(toy, {.left = 5, .right = 4});
  EXPECT_TRUE(at::equal(a.query.down, b.query.down));
  EXPECT_TRUE(at::equal(a.key.up, b.key.up));
  EXPECT_EQ(a.losses, b.losses);
}

absl::Status StatusOf(const QueryKeyProblem& problem, const TuckerRanks& ranks,
                      const QueryKeyOptions& options = {}) {
  return CompressQueryKey(problem, ranks, options).status();
}

TEST(JointQueryKeyTest, RefusesWrongArguments) {
  const QueryKeyProblem good = MakeQueryKeyToy({.lags = 6}, 230).problem;
  const TuckerRanks ranks{.left = 5, .right = 4};
  using enum absl::StatusCode;
  const absl::Status rank = StatusOf(good, {.left = 5, .right = 13});
  EXPECT_EQ(rank.code(), kOutOfRange);
  EXPECT_EQ(rank.message(), "rank of key is 13, expected 1 to 12");
  EXPECT_EQ(StatusOf(good, {.left = 0, .right = 4}).code(), kOutOfRange);
  EXPECT_EQ(StatusOf(good, ranks, {.centred = false}).message(),
            "query or key has a bias, expected none when not centred: with one, centring is free");
  EXPECT_EQ(StatusOf(good, ranks, {.damping = -1}).code(), kInvalidArgument);
  EXPECT_EQ(StatusOf(good, ranks, {.solver = {.sweeps = -1}}).code(), kInvalidArgument);
  EXPECT_EQ(StatusOf(good, ranks, {.solver = {.tolerance = -1}}).code(), kInvalidArgument);

  QueryKeyProblem p = good;
  p.kv_heads = 3;
  EXPECT_EQ(
      StatusOf(p, ranks).message(),
      "layer has 4 heads of 6 channels and 3 key and value heads, expected these to divide heads");
  p = good;
  p.rope = *RopeMetric::Causal(Frequencies(8), 6);
  EXPECT_EQ(StatusOf(p, ranks).message(), "RoPE is for heads of 8 channels, expected 6");
  p = good;
  p.key.weight = p.query.weight;
  EXPECT_EQ(StatusOf(p, ranks).code(), kInvalidArgument);
  p = good;
  p.query.weight = p.query.weight.to(at::kFloat);
  EXPECT_EQ(StatusOf(p, ranks).code(), kInvalidArgument);
  p = good;
  p.input.mean = at::Tensor();
  EXPECT_EQ(StatusOf(p, ranks).code(), kInvalidArgument);
  p = good;
  p.input.covariance = p.input.covariance / 0.0;
  EXPECT_EQ(StatusOf(p, ranks).code(), kInternal);
}

TEST(JointQueryKeyTest, RefusesStandInsThatDoNotFit) {
  const QueryKeyToy toy = MakeQueryKeyToy({}, 240);
  const JointQueryKey joint = Compress(toy, {.left = 5, .right = 4});
  EXPECT_FALSE(QueryKeyLoss(toy.problem, true, joint.key, joint.query).ok());
  QueryKeyProblem unbiased = toy.problem;
  unbiased.query.bias = at::Tensor();
  unbiased.key.bias = at::Tensor();
  EXPECT_EQ(QueryKeyLoss(unbiased, false, joint.query, joint.key).status().message(),
            "stand-in of the query has a bias, expected none when not centred");
}

}  // namespace
}  // namespace latentforge::low_rank
