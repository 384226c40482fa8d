#include "worker/low_rank/rope_metric.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/worker/low_rank/joint_reference.h"

namespace latentforge::low_rank {
namespace {

RopeMetric Get(absl::StatusOr<RopeMetric> metric) {
  EXPECT_TRUE(metric.ok()) << metric.status();
  return *std::move(metric);
}

// sum_D w_D R_{-D} S R_{-D}^T, one lag at a time.
at::Tensor ExplicitForQueries(const at::Tensor& s, const at::Tensor& theta, const at::Tensor& w) {
  at::Tensor sum = at::zeros_like(s);
  for (int64_t lag = 0; lag < w.size(0); ++lag) {
    const at::Tensor turn = Rotation(theta, -lag);
    sum = sum + w[lag] * at::matmul(at::matmul(turn, s), turn.t());
  }
  return sum / w.sum();
}

// sum_D w_D R_{-D}^T S R_{-D}.
at::Tensor ExplicitForKeys(const at::Tensor& s, const at::Tensor& theta, const at::Tensor& w) {
  return ExplicitForQueries(s, -theta, w);
}

// Angles reach 40 and are rounded at 1e-16 of that, sums of 40 terms average it.
constexpr double kTolerance = 1e-12;

// Oracle 8, and for matrices that are not symmetric.
TEST(RopeMetricTest, EqualsTheSumOverLags) {
  const at::Tensor theta = Frequencies(8);
  const at::Tensor s = RandomMatrix(8, 8, 1);
  const at::Tensor measured = RandomMatrix(1, 23, 2).abs()[0];
  const RopeMetric metric = Get(RopeMetric::FromLagWeights(theta, measured));
  EXPECT_EQ(metric.head_dim(), 8);
  EXPECT_LT(MaxAbs(metric.ForQueries(s) - ExplicitForQueries(s, theta, measured)), kTolerance);
  EXPECT_LT(MaxAbs(metric.ForKeys(s) - ExplicitForKeys(s, theta, measured)), kTolerance);
  EXPECT_GT(MaxAbs(metric.ForKeys(s) - metric.ForQueries(s)), 0.1);

  const RopeMetric causal = Get(RopeMetric::Causal(theta, 41));
  const at::Tensor counts = CausalLagWeights(41);
  EXPECT_LT(MaxAbs(causal.ForQueries(s) - ExplicitForQueries(s, theta, counts)), kTolerance);
  EXPECT_LT(MaxAbs(causal.ForKeys(s) - ExplicitForKeys(s, theta, counts)), kTolerance);
}

TEST(RopeMetricTest, AveragesEachOfABatch) {
  const RopeMetric metric = Get(RopeMetric::Causal(Frequencies(6), 9));
  const at::Tensor s = RandomMatrix(12, 6, 3).reshape({2, 6, 6});
  const at::Tensor both = metric.ForQueries(s);
  EXPECT_LT(MaxAbs(both[0] - metric.ForQueries(s[0])), 1e-15);
  EXPECT_LT(MaxAbs(both[1] - metric.ForQueries(s[1])), 1e-15);
}

// Oracle 8: theta = 0 turns nothing, and so does a lag of 0.
TEST(RopeMetricTest, NothingTurnsAtFrequencyZeroOrLagZero) {
  const at::Tensor s = RandomMatrix(6, 6, 4);
  const at::Tensor still = at::zeros({3}, at::kDouble);
  EXPECT_LT(MaxAbs(Get(RopeMetric::Causal(still, 100)).ForQueries(s) - s), 1e-15);
  EXPECT_LT(MaxAbs(Get(RopeMetric::Causal(Frequencies(6), 1)).ForKeys(s) - s), 1e-15);
}

TEST(RopeMetricTest, KeepsMatricesPositiveSemidefinite) {
  const at::Tensor column = RandomMatrix(10, 2, 5);
  const at::Tensor s = at::matmul(column, column.t());
  const at::Tensor mean = Get(RopeMetric::Causal(Frequencies(10), 300)).ForQueries(s);
  const at::Tensor values = at::linalg_eigvalsh(mean);
  EXPECT_GT(values.min().item<double>(), -1e-14 * values.max().item<double>());
  EXPECT_LT(MaxAbs(mean - mean.t()), 1e-14 * MaxAbs(mean));
  EXPECT_NEAR(mean.trace().item<double>(), s.trace().item<double>(), 1e-12);
}

// The closed form keeps its digits where geometric sums cancel: at angles far below 1 / L, near
// whole turns, and in between.
TEST(CausalPhiTest, EqualsItsSumAtEveryAngle) {
  for (const int64_t length : {1L, 2L, 3L, 50L, 2048L}) {
    for (const double omega : {0.0, 1e-300, 1e-160, 1e-12, 1e-7, 1e-5, 4.8e-4, 1e-3, 0.1, 1.0, 2.0,
                               3.1, 6.2831853, 6.2831854, -1e-5, -0.7}) {
      std::complex<double> sum = 0;
      double weights = 0;
      for (int64_t lag = 0; lag < length; ++lag) {
        const double angle = omega * double(lag);
        sum += double(length - lag) * std::complex<double>(std::cos(angle), -std::sin(angle));
        weights += double(length - lag);
      }
      const std::complex<double> phi = CausalPhi(omega, length);
      // The terms' own angles are rounded at 1e-16 of up to 1.3e4.
      EXPECT_NEAR(phi.real(), sum.real() / weights, 3e-12) << omega << " of " << length;
      EXPECT_NEAR(phi.imag(), sum.imag() / weights, 3e-12) << omega << " of " << length;
      // Small imaginary parts too, to their own size, until their squares underflow.
      if (std::abs(omega) * double(length) < 1 && std::abs(omega) > 1e-100) {
        const double expected = sum.imag() / weights;
        EXPECT_NEAR(phi.imag(), expected, 1e-12 * std::abs(expected)) << omega << " of " << length;
      }
    }
  }
}

TEST(RopeMetricTest, RefusesWrongArguments) {
  const at::Tensor theta = Frequencies(4);
  const at::Tensor weights = at::ones({3}, at::kDouble);
  const auto code = [](const absl::StatusOr<RopeMetric>& metric) { return metric.status().code(); };
  using enum absl::StatusCode;
  EXPECT_EQ(code(RopeMetric::Causal(theta, 0)), kInvalidArgument);
  EXPECT_EQ(code(RopeMetric::Causal({}, 5)), kInvalidArgument);
  EXPECT_EQ(code(RopeMetric::Causal(theta.to(at::kFloat), 5)), kInvalidArgument);
  EXPECT_EQ(code(RopeMetric::Causal(at::empty({0}, at::kDouble), 5)), kInvalidArgument);
  EXPECT_EQ(code(RopeMetric::Causal(theta / 0.0, 5)), kInternal);
  EXPECT_EQ(code(RopeMetric::FromLagWeights(theta, {})), kInvalidArgument);
  EXPECT_EQ(code(RopeMetric::FromLagWeights(theta, 0 * weights)), kInvalidArgument);
  EXPECT_EQ(code(RopeMetric::FromLagWeights(theta, weights.unsqueeze(0))), kInvalidArgument);
  EXPECT_EQ(code(RopeMetric::FromLagWeights(theta, weights / 0.0)), kInternal);
  const auto negative = RopeMetric::FromLagWeights(theta, -weights);
  EXPECT_EQ(negative.status().message(),
            "lag weights sum to -3, expected none below 0 and a positive sum");
}

}  // namespace
}  // namespace latentforge::low_rank
