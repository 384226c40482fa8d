#include "worker/calibrate/statistics_collector.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <limits>

namespace latentforge::calibrate {
namespace {

at::Tensor Random(at::IntArrayRef shape, uint64_t seed, at::ScalarType dtype) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble).to(dtype);
}

double Worst(const at::Tensor& seen, const at::Tensor& expected) {
  return ((seen - expected).abs().max() / expected.abs().max()).item<double>();
}

TEST(StatisticsCollectorTest, EqualsMomentsInDoublePrecision) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor key = Random({6, 12}, 1, at::kFloat);
    const at::Tensor value = Random({4, 12}, 2, at::kFloat);
    // More rows than one block, in uneven pieces.
    const at::Tensor x = Random({2500, 12}, 3, dtype);
    StatisticsCollector collector(key, value, {.cross = true, .covariance = true});
    ASSERT_TRUE(collector.Add(x.narrow(0, 0, 1900)).ok());
    ASSERT_TRUE(collector.Add(x.narrow(0, 1900, 600)).ok());
    const auto statistics = collector.Finish();
    ASSERT_TRUE(statistics.ok()) << statistics.status();

    const at::Tensor exact = x.to(at::kDouble);
    const at::Tensor y_key = at::mm(exact, key.to(at::kDouble).t());
    const at::Tensor y_value = at::mm(exact, value.to(at::kDouble).t());
    // fp32 sums of 1024 products: at most 1024 * 6e-8, in practice its root.
    constexpr double kTolerance = 1e-5;
    EXPECT_EQ(statistics->input.tokens, 2500);
    EXPECT_LT(Worst(statistics->input.mean_abs, exact.abs().mean(0)), kTolerance);
    EXPECT_LT(Worst(statistics->input.mean_square, exact.pow(2).mean(0)), kTolerance);
    EXPECT_LT(Worst(statistics->input.covariance, at::mm(exact.t(), exact) / 2500), kTolerance);
    EXPECT_LT(Worst(statistics->key.gram, at::mm(y_key.t(), y_key) / 2500), kTolerance);
    EXPECT_LT(Worst(statistics->value.gram, at::mm(y_value.t(), y_value) / 2500), kTolerance);
    EXPECT_LT(Worst(statistics->key.cross, at::mm(y_key.t(), exact) / 2500), kTolerance);
    EXPECT_LT(Worst(statistics->value.cross, at::mm(y_value.t(), exact) / 2500), kTolerance);
  }
}

TEST(StatisticsCollectorTest, KeepsOnlyWhatIsNeeded) {
  StatisticsCollector collector(Random({3, 5}, 1, at::kFloat), Random({3, 5}, 2, at::kFloat), {});
  EXPECT_EQ(collector.Finish().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(collector.Add(Random({7, 4}, 3, at::kFloat)).code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(collector.Add(Random({7, 5}, 3, at::kFloat)).ok());
  const auto statistics = collector.Finish();
  ASSERT_TRUE(statistics.ok()) << statistics.status();
  EXPECT_FALSE(statistics->input.covariance.defined());
  EXPECT_FALSE(statistics->key.cross.defined());
}

TEST(StatisticsCollectorTest, InfinityIsAnError) {
  StatisticsCollector collector(Random({3, 5}, 1, at::kFloat), Random({3, 5}, 2, at::kFloat), {});
  at::Tensor x = Random({7, 5}, 3, at::kFloat);
  x[2][3] = std::numeric_limits<float>::infinity();
  ASSERT_TRUE(collector.Add(x).ok());
  EXPECT_EQ(collector.Finish().status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace latentforge::calibrate
