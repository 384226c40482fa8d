#include "checkpoint/kv_budget.h"

#include <cmath>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

using ::testing::HasSubstr;

// SmolLM2-135M: 30 layers, 3 KV heads of 64.
ModelConfig SmolLm2() {
  ModelConfig config;
  config.num_layers = 30;
  config.num_heads = 9;
  config.num_kv_heads = 3;
  config.head_dim = 64;
  return config;
}

TEST(KvBudgetTest, CountsTheCacheOfBaseModelsAndArtifacts) {
  EXPECT_EQ(KvValuesPerToken(SmolLm2()), 2 * 192 * 30);
  EXPECT_EQ(KvBytesPerToken(SmolLm2(), DType::kBF16), 23040);
  const ModelConfig artifact =
      ParseModelConfig(TinyConfigJson({.ranks = {{4, 16, 0}, {1, 2, 0}}})).value();
  EXPECT_EQ(KvValuesPerToken(artifact), 23);
  EXPECT_EQ(KvBytesPerToken(artifact.latent->ranks, DType::kF32), 92);
  // Keys of rank 5 beside dense values, and the other way round; the other maps cache nothing.
  TinyOptions options;
  options.low_rank = LowRankConfig{.ranks = {{.q = 9, .k = 5, .down = 3}, {.v = 2}}};
  const ModelConfig low_rank = ParseModelConfig(TinyConfigJson(options)).value();
  EXPECT_EQ(KvValuesPerToken(low_rank), (5 + 16) + (16 + 2));
  EXPECT_EQ(KvBytesPerToken(low_rank, DType::kBF16), 2 * 39);
}

TEST(KvBudgetTest, TotalsAreTheLargestThatABudgetAllows) {
  const double full = 192 * 30;
  for (int percent = 1; percent <= 100; ++percent) {
    const double budget = percent / 100.0;
    const absl::StatusOr<RankTotals> totals = RankTotalsForBudget(SmolLm2(), budget);
    ASSERT_TRUE(totals.ok()) << totals.status();
    EXPECT_EQ(totals->k, totals->v);
    EXPECT_LE(static_cast<double>(totals->k) / full, budget);
    EXPECT_GT(static_cast<double>(totals->k + 1) / full, budget);
    const absl::StatusOr<int64_t> joint = JointRankTotalForBudget(SmolLm2(), budget);
    ASSERT_TRUE(joint.ok());
    EXPECT_LE(static_cast<double>(*joint) / (2 * full), budget);
    EXPECT_GE(*joint, 2 * totals->k);
  }
  EXPECT_EQ(RankTotalsForBudget(SmolLm2(), 1)->k, 192 * 30);
  // 0.29 * 100 is 28.999... in binary.
  ModelConfig hundred = SmolLm2();
  hundred.num_layers = 1;
  hundred.num_kv_heads = 1;
  hundred.head_dim = 100;
  EXPECT_EQ(RankTotalsForBudget(hundred, 0.29)->k, 29);
}

TEST(KvBudgetTest, RefusesBudgetsOutsideTheRangeAndBelowRankOne) {
  for (const double budget :
       {0.0, -0.5, 1.0000001, 2.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    const absl::Status status = RankTotalsForBudget(SmolLm2(), budget).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << budget;
    EXPECT_TRUE(absl::IsInvalidArgument(JointRankTotalForBudget(SmolLm2(), budget).status()));
  }
  const absl::Status status = RankTotalsForBudget(SmolLm2(), 0.005).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("smallest feasible budget is 0.00520833"));
  EXPECT_EQ(RankTotalsForBudget(SmolLm2(), SmallestBudget(SmolLm2()))->k, 30);
  EXPECT_EQ(*JointRankTotalForBudget(SmolLm2(), SmallestBudget(SmolLm2()) / 2), 30);
}

TEST(KvBudgetTest, EveryLatentNeedsItsLeastRank) {
  // 30 layers of 192 keys and 192 values.
  struct Case {
    RankRules rules;
    double fits;    // the smallest budget, or one a little above it
    double misses;  // a little below
  };
  const Case cases[] = {
      {{}, 1.0 / 192, 0.0052},
      {{.joint = true}, 1.0 / 384, 0.0026},
      {{.multiple = 64}, 1.0 / 3, 0.3333},
      {{.joint = true, .multiple = 64}, 1.0 / 6, 0.1666},
      {{.uniform = true}, 1.0 / 192, 0.0052},
      {{.joint = true, .uniform = true, .multiple = 100}, 100.0 / 384, 0.26},
      // Narrower than one multiple: the full width is the least.
      {{.multiple = 500}, 1, 0.999},
  };
  for (const Case& c : cases) {
    const absl::Status fits = CheckRanksFit(SmolLm2(), c.fits, c.rules);
    EXPECT_TRUE(fits.ok()) << fits;
    const absl::Status misses = CheckRanksFit(SmolLm2(), c.misses, c.rules);
    EXPECT_TRUE(absl::IsOutOfRange(misses)) << c.misses << ": " << misses;
  }
  const absl::Status status = CheckRanksFit(SmolLm2(), 0.125, {.joint = true, .multiple = 64});
  EXPECT_EQ(status.message(),
            "KV budget is 0.125, which leaves 30 latents together 1440 of 11520 values a token, "
            "expected at least 1920, a budget of at least 0.166667, or a rank multiple of at most "
            "48 (it is 64)");
  EXPECT_TRUE(absl::IsInvalidArgument(CheckRanksFit(SmolLm2(), 0, {})));
  EXPECT_TRUE(absl::IsInvalidArgument(CheckRanksFit(SmolLm2(), 0.5, {.multiple = 0})));
}

}  // namespace
}  // namespace latentforge::checkpoint
