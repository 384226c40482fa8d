#include "checkpoint/rank_rule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace latentforge::checkpoint {
namespace {

int64_t Rank(RankRule rule, int64_t out, int64_t in, double ratio, int64_t multiple = 1) {
  const auto rank = RankForRatio(rule, out, in, ratio, multiple);
  EXPECT_TRUE(rank.ok()) << rank.status();
  return rank.value_or(-1);
}

// In whole numbers of percent, so that no rounding can agree with the code's own.
TEST(RankRuleTest, TheRankIsTheLargestThatFits) {
  for (const RankRule rule : {RankRule::kBlockIdentity, RankRule::kNaive}) {
    for (const auto& [out, in] : {std::tuple{40L, 40L}, {64L, 24L}, {24L, 64L}, {192L, 576L}}) {
      for (int64_t percent = 0; percent < 90; ++percent) {
        const int64_t rank = Rank(rule, out, in, double(percent) / 100);
        EXPECT_LE(100 * Parameters(rule, out, in, rank), (100 - percent) * out * in);
        if (rank == std::min(out, in)) continue;
        EXPECT_GT(100 * Parameters(rule, out, in, rank + 1), (100 - percent) * out * in)
            << out << " x " << in << " at " << percent << " %";
      }
    }
  }
}

// d (1 - sqrt(ratio)) for a square matrix; at squares of whole percents the root is exact.
TEST(RankRuleTest, ASquareMatrixKeepsOneMinusTheRoot) {
  for (int64_t root = 1; root < 10; ++root) {
    const double ratio = double(root * root) / 100;
    EXPECT_EQ(Rank(RankRule::kBlockIdentity, 1000, 1000, ratio), 1000 - 100 * root) << ratio;
  }
}

// Figures worked out by hand from the two formulas for layers of known models.
TEST(RankRuleTest, RanksOfKnownShapes) {
  EXPECT_EQ(Rank(RankRule::kBlockIdentity, 4096, 4096, 0.1), 2800);
  EXPECT_EQ(Rank(RankRule::kNaive, 4096, 4096, 0.1), 1843);
  EXPECT_EQ(Rank(RankRule::kBlockIdentity, 12288, 4096, 0.3), 2546);
  EXPECT_EQ(Rank(RankRule::kNaive, 4096, 12288, 0.3), 2150);
  EXPECT_EQ(Rank(RankRule::kBlockIdentity, 512, 3584, 0.5), 237);
  EXPECT_EQ(Rank(RankRule::kBlockIdentity, 4096, 4096, 0.1, 64), 2752);
}

TEST(RankRuleTest, NothingIsTakenAtRatioZero) {
  EXPECT_EQ(Rank(RankRule::kBlockIdentity, 30, 50, 0), 30);
  EXPECT_EQ(Parameters(RankRule::kBlockIdentity, 30, 50, 30), 30 * 50);
}

TEST(RankRuleTest, RefusesWhatNoRankCanMeet) {
  const auto rank = RankForRatio(RankRule::kNaive, 4, 4, 0.6);
  EXPECT_TRUE(absl::IsOutOfRange(rank.status()));
  EXPECT_EQ(rank.status().message(),
            "ratio is 0.6, expected at most 0.5, which leaves a [4, 4] matrix the rank 1");
  EXPECT_TRUE(absl::IsOutOfRange(RankForRatio(RankRule::kNaive, 8, 8, 0.1, 8).status()));
}

TEST(RankRuleTest, RefusesWrongArguments) {
  for (const double ratio : {-0.1, 1.0, 2.0, std::nan("")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(RankForRatio(RankRule::kNaive, 8, 8, ratio).status()));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(RankForRatio(RankRule::kNaive, 0, 8, 0.5).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(RankForRatio(RankRule::kNaive, 8, 8, 0.5, 0).status()));
}

}  // namespace
}  // namespace latentforge::checkpoint
