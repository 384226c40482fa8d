#include "worker/factorize/anchored_weight.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/worker/factorize/loss_reference.h"

namespace latentforge::factorize {
namespace {

constexpr int64_t kWidth = 4;  // m
constexpr int64_t kInputs = 9;
constexpr int64_t kTokens = 400;
constexpr int64_t kSequences = 20;

// One layer's inputs in the original model and behind converted layers, tokens as columns;
// position 0 of each sequence comes first.
struct AnchorProblem {
  LossProblem loss;  // of the original
  at::Tensor converted;
  AnchorMoments moments;

  // Of both moments: [tokens], that of position 0 raised.
  at::Tensor TokenWeights(double alpha) const {
    at::Tensor weights = at::full({kTokens}, (1 - alpha) / double(kTokens), at::kDouble);
    weights.narrow(0, 0, kSequences).add_(alpha / double(kSequences));
    return weights;
  }
};

AnchorMoments MomentsOf(const at::Tensor& original, const at::Tensor& converted) {
  const at::Tensor o = original.narrow(1, 0, kSequences);
  const at::Tensor c = converted.narrow(1, 0, kSequences);
  return {.tokens = kTokens,
          .sequences = kSequences,
          .converted = SecondMoment(converted),
          .converted_first = SecondMoment(c),
          .cross = at::matmul(original, converted.t()) / double(kTokens),
          .cross_first = at::matmul(o, c.t()) / double(kSequences)};
}

// The converted stream is the original's, turned a little, plus a tenth of noise.
AnchorProblem RandomAnchorProblem(uint64_t seed) {
  AnchorProblem p{.loss = RandomLossProblem(kWidth, kInputs, seed)};
  const at::Tensor turn =
      at::eye(kInputs, at::kDouble) + 0.1 * RandomMatrix(kInputs, kInputs, seed + 10);
  const at::Tensor noise = RandomMatrix(kInputs, kTokens, seed + 11) * p.loss.x.std();
  p.converted = at::matmul(turn, p.loss.x) + 0.1 * noise;
  p.moments = MomentsOf(p.loss.x, p.converted);
  return p;
}

at::Tensor Anchored(const AnchorProblem& p, const AnchorOptions& options) {
  const auto result = AnchoredWeight(p.loss.weight, p.moments, options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *result;
}

// Without damping W' is the least-squares fit of W x_o to x_c over the weighted tokens, here by
// the pseudo-inverse of the tokens themselves, with no moment formed.
TEST(AnchoredWeightTest, IsTheRegressionOfTheOutputsOnTheConvertedInputs) {
  const AnchorProblem p = RandomAnchorProblem(40);
  for (const double alpha : {0.0, 0.125, 1.0}) {
    const at::Tensor root = p.TokenWeights(alpha).sqrt();
    const at::Tensor expected =
        at::matmul(at::matmul(p.loss.weight, p.loss.x * root), at::linalg_pinv(p.converted * root));
    const at::Tensor found = Anchored(p, {.sink_weight = alpha, .damping = 0});
    // Normal equations square the condition number of the tokens, below 1e3 here (the noise is
    // a tenth of the largest direction): 1e6 roundings of 1e-16, and some for the sums.
    EXPECT_LT(MaxAbs(found - expected), 1e-8 * MaxAbs(expected)) << alpha;
    EXPECT_GT(MaxAbs(found - p.loss.weight), 0.01 * MaxAbs(p.loss.weight));
  }
}

TEST(AnchoredWeightTest, IsDampedByTheMeanDiagonal) {
  const AnchorProblem p = RandomAnchorProblem(41);
  const at::Tensor c = 0.875 * p.moments.converted + 0.125 * p.moments.converted_first;
  const at::Tensor cross = 0.875 * p.moments.cross + 0.125 * p.moments.cross_first;
  const at::Tensor d = 0.3 * c.trace() / double(kInputs) * at::eye(kInputs, at::kDouble);
  const at::Tensor expected =
      at::matmul(p.loss.weight, at::matmul(cross + d, at::linalg_inv(c + d)));
  // Condition number below 1e2 with that damping.
  EXPECT_LT(MaxAbs(Anchored(p, {.damping = 0.3}) - expected), 1e-12 * MaxAbs(expected));
}

// tr(G E[(W x_o - V x_c) (W x_o - V x_c)^T]) over the weighted tokens.
double Residual(const AnchorProblem& p, LatentPart part, const at::Tensor& fisher, double alpha,
                const at::Tensor& map) {
  const at::Tensor error =
      at::matmul(RowsOf(p.loss, part), p.loss.x) - at::matmul(map, p.converted);
  const at::Tensor moment = at::matmul(error * p.TokenWeights(alpha), error.t());
  return (fisher * moment).sum().item<double>();
}

// B A of least residual by turns: A for a fixed B, then B for a fixed A, each exactly. No root,
// no eigenvectors, no W'.
at::Tensor ByTurns(const AnchorProblem& p, LatentPart part, const at::Tensor& fisher, double alpha,
                   int64_t rank) {
  const at::Tensor weights = p.TokenWeights(alpha);
  const at::Tensor c = at::matmul(p.converted * weights, p.converted.t());
  const at::Tensor target =
      at::matmul(at::matmul(RowsOf(p.loss, part), p.loss.x * weights), p.converted.t());  // W C_oc
  const at::Tensor fit = at::matmul(target, at::linalg_inv(c));
  at::Tensor up = RandomMatrix(target.size(0), rank, 7);
  at::Tensor down;
  for (int turn = 0; turn < 3000; ++turn) {
    const at::Tensor weighted = at::matmul(up.t(), fisher);
    down = at::linalg_solve(at::matmul(weighted, up), at::matmul(weighted, fit));
    const at::Tensor latent = at::matmul(at::matmul(down, c), down.t());
    up = at::linalg_solve(latent, at::matmul(down, target.t())).t();
  }
  return at::matmul(up, down);
}

TEST(AnchoredWeightTest, ItsFactorsAreTheReducedRankRegression) {
  const AnchorProblem p = RandomAnchorProblem(42);
  const LossMetricOptions metric{.sink_weight = 0.125, .ridge = 1e-3};
  const at::Tensor anchored = Anchored(p, {.sink_weight = metric.sink_weight, .damping = 0});
  const LossStatistics statistics = AnchoredStatistics(anchored, p.moments, p.loss.statistics);
  for (const LatentPart part : {LatentPart::kJoint, LatentPart::kKey, LatentPart::kValue}) {
    const at::Tensor fisher = RidgedFisher(p.loss, part, metric.ridge);
    const auto d = LossDecomposition::Compute(anchored, statistics, part, metric);
    ASSERT_TRUE(d.ok()) << d.status();
    const auto plain =
        LossDecomposition::Compute(p.loss.weight, p.loss.statistics, part, metric).value();
    const auto residual = [&](const at::Tensor& map) {
      return Residual(p, part, fisher, metric.sink_weight, map);
    };
    for (const int64_t rank : {1, 2, 3}) {
      const Factors factors = d->FactorsOf(rank, Gauge::kUnitRms).value();
      const at::Tensor product = at::matmul(factors.up, factors.down);
      const double least = residual(ByTurns(p, part, fisher, metric.sink_weight, rank));
      // Turns end at the least value; what rounding leaves of the maps counts by its square.
      EXPECT_NEAR(residual(product), least, 1e-9 * least) << int(part) << ", rank " << rank;
      // And it is not what the factorisation without the converted inputs gives.
      const Factors before = plain.FactorsOf(rank, Gauge::kUnitRms).value();
      EXPECT_GT(residual(at::matmul(before.up, before.down)), 1.001 * least);
    }
  }
}

// Nothing is to be made good where no layer before was converted, whatever the damping.
TEST(AnchoredWeightTest, EqualStreamsLeaveTheFactorisationAsItIs) {
  const LossProblem p = RandomLossProblem(kWidth, kInputs, 43);
  const AnchorMoments moments = MomentsOf(p.x, p.x);
  for (const double damping : {0.0, 1e-2, 1.0}) {
    const auto anchored = AnchoredWeight(p.weight, moments, {.damping = damping});
    ASSERT_TRUE(anchored.ok()) << anchored.status();
    // The condition number of C, below 1e5, times 1e-16.
    EXPECT_LT(MaxAbs(*anchored - p.weight), 1e-10 * MaxAbs(p.weight));
    const LossStatistics statistics = AnchoredStatistics(*anchored, moments, p.statistics);
    ASSERT_TRUE(CheckLossStatistics(statistics, 2 * kWidth).ok());
    EXPECT_EQ(statistics.tokens, kTokens);
    EXPECT_EQ(statistics.sequences, kSequences);
    const auto product = [](const at::Tensor& weight, const LossStatistics& s) {
      const auto d = LossDecomposition::Compute(weight, s, LatentPart::kJoint, {}).value();
      const Factors factors = d.FactorsOf(4, Gauge::kUnitRms).value();
      return at::matmul(factors.up, factors.down);
    };
    // Over the smallest relative gap of eigenvalues, above 1e-3.
    EXPECT_LT(MaxAbs(product(*anchored, statistics) - product(p.weight, p.statistics)),
              1e-7 * MaxAbs(p.weight));
  }
}

TEST(AnchoredWeightTest, RefusesWhatItCannotSolve) {
  const AnchorProblem p = RandomAnchorProblem(44);
  const auto status = [&](const AnchorMoments& moments, const AnchorOptions& options = {}) {
    return AnchoredWeight(p.loss.weight, moments, options).status();
  };
  EXPECT_TRUE(status(p.moments).ok());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double wrong : {-0.1, 1.1, nan}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status(p.moments, {.sink_weight = wrong}))) << wrong;
  }
  for (const double wrong : {-0.1, nan, std::numeric_limits<double>::infinity()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status(p.moments, {.damping = wrong}))) << wrong;
  }
  for (at::Tensor AnchorMoments::*moment :
       {&AnchorMoments::converted, &AnchorMoments::converted_first, &AnchorMoments::cross,
        &AnchorMoments::cross_first}) {
    AnchorMoments wrong = p.moments;
    wrong.*moment = at::Tensor();
    EXPECT_TRUE(absl::IsInvalidArgument(status(wrong)));
    wrong.*moment = at::zeros({kInputs, kInputs + 1}, at::kDouble);
    EXPECT_TRUE(absl::IsInvalidArgument(status(wrong)));
    wrong.*moment = (p.moments.*moment).to(at::kFloat);
    EXPECT_TRUE(absl::IsInvalidArgument(status(wrong)));
    wrong.*moment = at::full({kInputs, kInputs}, nan, at::kDouble);
    EXPECT_TRUE(absl::IsInternal(status(wrong)));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(AnchoredWeight(at::Tensor(), p.moments, {}).status()));

  // A channel without any input: singular, unless damped.
  at::Tensor silent = p.converted.clone();
  silent[3].zero_();
  const AnchorMoments singular = MomentsOf(p.loss.x, silent);
  EXPECT_TRUE(absl::IsInternal(status(singular, {.damping = 0})));
  EXPECT_NE(status(singular, {.damping = 0}).message().find("singular"), absl::string_view::npos);
  EXPECT_TRUE(status(singular, {.damping = 1e-2}).ok());
}

}  // namespace
}  // namespace latentforge::factorize
