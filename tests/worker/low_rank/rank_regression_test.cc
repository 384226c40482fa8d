#include "worker/low_rank/rank_regression.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/worker/factorize/reference.h"

namespace latentforge::low_rank {
namespace {

using factorize::MaxAbs;
using factorize::RandomMatrix;
using factorize::SymmetricRoot;

class RankRegressionTest : public testing::Test {
 protected:
  // Products are tiny, and solves many.
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

// Tokens as rows: t is a noisy, biased map of x, so that no W reaches it.
struct Samples {
  at::Tensor x;         // [n, in]
  at::Tensor t;         // [n, out]
  at::Tensor true_map;  // [out, in]
};

Samples MakeSamples(int64_t n, int64_t out, int64_t in, uint64_t seed) {
  const at::Tensor mix = RandomMatrix(in, in, seed) * at::logspace(0.5, -0.5, in, 10, at::kDouble);
  Samples s;
  s.x = at::matmul(RandomMatrix(n, in, seed + 1), mix) + RandomMatrix(1, in, seed + 2);
  s.true_map = RandomMatrix(out, in, seed + 3);
  s.t = at::matmul(s.x, s.true_map.t()) + RandomMatrix(1, out, seed + 4) +
        RandomMatrix(n, out, seed + 5);
  return s;
}

at::Tensor FullMetric(const at::Tensor& metric, int64_t out) {
  if (!metric.defined()) return at::eye(out, at::kDouble);
  return metric.dim() == 1 ? at::diag(metric) : metric;
}

RegressionMoments MomentsOf(const Samples& s, const at::Tensor& metric = {}) {
  const double n = double(s.x.size(0));
  const at::Tensor weighted = at::matmul(s.t, FullMetric(metric, s.t.size(1)));
  return {.tokens = s.x.size(0),
          .input_mean = s.x.mean(0),
          .input_covariance = at::matmul(s.x.t(), s.x) / n,
          .target_mean = s.t.mean(0),
          .cross = at::matmul(s.t.t(), s.x) / n,
          .target_power = (weighted * s.t).sum().item<double>() / n};
}

RankRegression Solve(const Samples& s, const RegressionOptions& options) {
  auto result = RankRegression::Solve(MomentsOf(s, options.metric), options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

LowRank At(const RankRegression& regression, int64_t rank) {
  const auto map = regression.At(rank);
  EXPECT_TRUE(map.ok()) << map.status();
  return *map;
}

at::Tensor Product(const LowRank& map) { return at::matmul(map.up, map.down); }

// E|t - W x - b|_G^2 token by token.
double LossOf(const Samples& s, const LowRank& map, const at::Tensor& metric) {
  at::Tensor error = s.t - at::matmul(s.x, Product(map).t());
  if (map.bias.defined()) error = error - map.bias;
  const at::Tensor g = FullMetric(metric, s.t.size(1));
  return (at::matmul(error, g) * error).sum().item<double>() / double(s.x.size(0));
}

// From the tokens themselves: the ridge regression as least squares with rows sqrt(lambda) of the
// prior, then Eckart and Young's theorem in symmetric roots. W of ranks 0, 1, ...
std::vector<at::Tensor> BestOfEachRank(const Samples& s, const RegressionOptions& options) {
  const double n = double(s.x.size(0));
  const int64_t in = s.x.size(1);
  const at::Tensor x = options.centred ? s.x - s.x.mean(0) : s.x;
  const at::Tensor t = options.centred ? s.t - s.t.mean(0) : s.t;
  const double lambda = options.damping * x.pow(2).sum().item<double>() / n / double(in);
  const at::Tensor pull = std::sqrt(n * lambda) * at::eye(in, at::kDouble);
  const at::Tensor prior =
      options.prior.defined() ? options.prior : at::zeros({t.size(1), in}, at::kDouble);
  const at::Tensor rows = at::cat({x, pull});
  const at::Tensor targets = at::cat({t, at::matmul(pull, prior.t())});
  const at::Tensor map = std::get<0>(at::linalg_lstsq(rows, targets)).t();
  const at::Tensor right = SymmetricRoot(at::matmul(rows.t(), rows) / n);
  const at::Tensor left = SymmetricRoot(FullMetric(options.metric, t.size(1)));
  const auto [u, e, v] =
      at::linalg_svd(at::matmul(at::matmul(left, map), right), /*full_matrices=*/false);
  const at::Tensor back = at::linalg_inv(left);
  const at::Tensor forth = at::linalg_inv(right);
  std::vector<at::Tensor> best;
  for (int64_t rank = 0; rank <= e.size(0); ++rank) {
    const at::Tensor low =
        at::matmul(u.narrow(1, 0, rank) * e.narrow(0, 0, rank), v.narrow(0, 0, rank));
    best.push_back(at::matmul(at::matmul(back, low), forth));
  }
  return best;
}

// No metric, a diagonal and a full one.
std::vector<at::Tensor> Metrics(int64_t out) {
  const at::Tensor spread = RandomMatrix(out, out, 90);
  return {at::Tensor(), at::logspace(0.5, -0.5, out, 10, at::kDouble),
          at::matmul(spread, spread.t()) / double(out) + 0.1 * at::eye(out, at::kDouble)};
}

// Either side the smaller one, each metric, with and without bias, damping and prior.
TEST_F(RankRegressionTest, ReachesTheMinimumAndPredictsItsLoss) {
  for (const auto& [out, in] : {std::pair{5L, 9L}, {9L, 5L}, {6L, 6L}}) {
    const Samples s = MakeSamples(60, out, in, 10);
    for (const at::Tensor& metric : Metrics(out)) {
      for (const bool centred : {false, true}) {
        for (const double damping : {0.0, 0.1}) {
          const RegressionOptions options{.centred = centred,
                                          .damping = damping,
                                          .prior = damping > 0 ? s.true_map : at::Tensor(),
                                          .metric = metric};
          const RankRegression regression = Solve(s, options);
          ASSERT_EQ(regression.max_rank(), std::min(out, in));
          const std::vector<at::Tensor> best = BestOfEachRank(s, options);
          // Rounding of 1e-16 times the condition of C (1e3), of G (1e2) and the inverse of the
          // smallest gap between eigenvalues (1e3).
          for (int64_t rank = 1; rank <= regression.max_rank(); ++rank) {
            const LowRank map = At(regression, rank);
            EXPECT_EQ(map.bias.defined(), centred);
            EXPECT_LT(MaxAbs(Product(map) - best[rank]), 1e-8 * MaxAbs(best[rank]));
            const double direct = LossOf(s, map, metric);
            EXPECT_NEAR(regression.Loss(rank), direct, 1e-11 * regression.Loss(0));
          }
        }
      }
    }
  }
}

// Without damping, nothing near the solution is better: neither factor nor bias can be moved.
TEST_F(RankRegressionTest, NoNeighbourIsBetter) {
  const Samples s = MakeSamples(60, 7, 5, 20);
  const LowRank map = At(Solve(s, {.damping = 0}), 3);
  const double least = LossOf(s, map, {});
  for (uint64_t seed = 0; seed < 20; ++seed) {
    LowRank moved = map;
    moved.up = map.up + 1e-3 * RandomMatrix(7, 3, 100 + seed);
    moved.down = map.down + 1e-3 * RandomMatrix(3, 5, 200 + seed);
    moved.bias = map.bias + 1e-3 * RandomMatrix(1, 7, 300 + seed).squeeze(0);
    EXPECT_GT(LossOf(s, moved, {}), least);
  }
}

TEST_F(RankRegressionTest, SpectrumIsWhatEachRankTakesOffTheUndampedLoss) {
  const Samples s = MakeSamples(60, 7, 5, 30);
  for (const at::Tensor& metric : Metrics(7)) {
    const RankRegression regression = Solve(s, {.damping = 0, .metric = metric});
    for (int64_t rank = 0; rank < regression.max_rank(); ++rank) {
      EXPECT_NEAR(regression.spectrum()[rank], regression.Loss(rank) - regression.Loss(rank + 1),
                  1e-11 * regression.Loss(0));
    }
  }
}

// Oracle 3: of t = V x with the prior V it is svd_r(V P) P^+ with P = (C + lambda I)^(1/2).
TEST_F(RankRegressionTest, IsTheRootCovarianceDecompositionOfAWeight) {
  for (const auto& [out, in] : {std::pair{6L, 10L}, {10L, 6L}}) {
    const factorize::Problem p = factorize::RandomProblem(out, in, 80, 40);
    const Samples s{.x = p.x.t(), .t = at::matmul(p.weight, p.x).t(), .true_map = p.weight};
    const RankRegression regression =
        Solve(s, {.centred = false, .damping = 1e-2, .prior = p.weight});
    const at::Tensor root = SymmetricRoot(factorize::DampedCovariance(p, 1e-2));
    for (int64_t rank = 1; rank <= std::min(out, in); ++rank) {
      const at::Tensor best = factorize::TruncatedByDefinition(p.weight, root, rank);
      // The damped C has a condition of at most 1e3, and gaps of eigenvalues are above 1e-4.
      EXPECT_LT(MaxAbs(Product(At(regression, rank)) - best), 1e-9 * MaxAbs(best));
    }
    // At full rank nothing is lost, on the calibration tokens or elsewhere.
    EXPECT_LT(MaxAbs(Product(At(regression, std::min(out, in))) - p.weight), 1e-9);
  }
}

// Fewer tokens than inputs: damping 0 is the limit of small damping, towards the prior as well.
TEST_F(RankRegressionTest, ASingularCovarianceGivesTheLimitOfSmallDamping) {
  for (const int64_t out : {4L, 14L}) {
    const Samples s = MakeSamples(7, out, 12, 50);
    for (const at::Tensor& prior : {at::Tensor(), RandomMatrix(out, 12, 55)}) {
      for (const at::Tensor& metric : Metrics(out)) {
        const RankRegression limit = Solve(s, {.damping = 0, .prior = prior, .metric = metric});
        const RankRegression near = Solve(s, {.damping = 1e-9, .prior = prior, .metric = metric});
        for (const int64_t rank : {1L, 2L, 4L}) {
          const at::Tensor product = Product(At(limit, rank));
          // The step of 1e-9 in lambda moves the fit by 1e-9 over the smallest eigenvalue that is
          // not zero (1e-3 of the mean) and over the gaps of the spectrum (1e-2).
          EXPECT_LT(MaxAbs(product - Product(At(near, rank))), 1e-3 * MaxAbs(product));
          EXPECT_NEAR(limit.Loss(rank), near.Loss(rank), 1e-6 * limit.Loss(0));
          EXPECT_NEAR(limit.Loss(rank), LossOf(s, At(limit, rank), metric), 1e-10 * limit.Loss(0));
        }
      }
    }
    // Seven tokens and a bias: six directions predict everything.
    const RankRegression all = Solve(s, {.damping = 0});
    EXPECT_LT(all.Loss(std::min<int64_t>(out, 6)), 1e-10 * all.Loss(0));
  }
}

// A metric of rank 2 asks for two components; the rest of the output is free.
TEST_F(RankRegressionTest, ASingularMetricIsMetAtItsRank) {
  for (const auto& [out, in] : {std::pair{5L, 9L}, {9L, 5L}}) {
    const Samples s = MakeSamples(60, out, in, 60);
    const at::Tensor spread = RandomMatrix(out, 2, 65);
    const at::Tensor metric = at::matmul(spread, spread.t());
    const RankRegression regression = Solve(s, {.damping = 0, .metric = metric});
    const RankRegression full = Solve(s, {.damping = 0});
    const double least = LossOf(s, At(full, full.max_rank()), metric);
    EXPECT_NEAR(LossOf(s, At(regression, 2), metric), least, 1e-10 * regression.Loss(0));
    EXPECT_NEAR(LossOf(s, At(regression, 4), metric), least, 1e-10 * regression.Loss(0));
    EXPECT_GT(LossOf(s, At(regression, 1), metric), 1.01 * least);
  }
}

TEST_F(RankRegressionTest, SilentInputsLeaveTheBias) {
  Samples s = MakeSamples(20, 6, 4, 70);
  s.x.zero_();
  const RankRegression regression = Solve(s, {});
  const LowRank map = At(regression, 3);
  EXPECT_EQ(MaxAbs(Product(map)), 0);
  EXPECT_LT(MaxAbs(map.bias - s.t.mean(0)), 1e-14);
  EXPECT_NEAR(regression.Loss(3), (s.t - s.t.mean(0)).pow(2).sum().item<double>() / 20, 1e-12);
}

TEST_F(RankRegressionTest, RefusesWrongArguments) {
  const RegressionMoments moments = MomentsOf(MakeSamples(20, 6, 4, 80));
  const auto refusal = [](const RegressionMoments& m, const RegressionOptions& options = {}) {
    return RankRegression::Solve(m, options).status();
  };
  RegressionMoments broken = moments;
  broken.tokens = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(broken)));
  broken = moments;
  broken.cross = at::Tensor();
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(broken)));
  broken = moments;
  broken.input_covariance = moments.input_covariance.to(at::kFloat);
  EXPECT_EQ(refusal(broken).message(),
            "statistics: E[x x^T] has shape [4, 4] and type Float, expected [4, 4] Double");
  broken = moments;
  broken.input_covariance = moments.input_covariance * std::nan("");
  EXPECT_TRUE(absl::IsInternal(refusal(broken)));
  broken = moments;
  broken.target_power = INFINITY;
  EXPECT_TRUE(absl::IsInternal(refusal(broken)));

  EXPECT_EQ(refusal(moments, {.damping = -1}).message(),
            "damping is -1, expected a finite number of at least 0");
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(moments, {.damping = std::nan("")})));
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(moments, {.prior = RandomMatrix(4, 6, 1)})));
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(moments, {.metric = RandomMatrix(6, 4, 1)})));
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(moments, {.metric = at::ones({5}, at::kDouble)})));

  const auto regression = RankRegression::Solve(moments, {});
  ASSERT_TRUE(regression.ok());
  EXPECT_EQ(regression->At(5).status().message(),
            "rank is 5, expected 1 to the smaller side of the map, 4");
  EXPECT_TRUE(absl::IsOutOfRange(regression->At(0).status()));
}

}  // namespace
}  // namespace latentforge::low_rank
