#include "worker/factorize/budget_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace latentforge::factorize {
namespace {

using Curve = std::vector<std::pair<int64_t, double>>;

// Like the spectrum of a model: falls by about e every tenth of the cache.
Curve ExponentialCurve(int64_t whole) {
  Curve curve;
  for (int64_t i = 1; i <= 32; ++i) {
    const double share = double(i) / 32;
    curve.emplace_back(whole * i / 32, i == 32 ? 0 : 0.5 * (std::exp(-8 * share) - std::exp(-8)));
  }
  return curve;
}

struct Outcome {
  int64_t best;
  size_t measurements;
};

Outcome Search(const Curve& curve, double limit, const std::function<double(int64_t)>& measure) {
  BudgetSearch search(curve, limit);
  while (const auto next = search.Next()) {
    EXPECT_GE(*next, curve.front().first);
    EXPECT_LE(*next, curve.back().first);
    search.Add({*next, measure(*next)});
    if (search.measurements().size() > 20) break;
  }
  return {search.Best(), search.measurements().size()};
}

TEST(BudgetSearchTest, FindsTheSmallestCacheWithinTheLimit) {
  const Curve curve = ExponentialCurve(11520);
  // Measured losses are off by a factor that itself depends on the size.
  for (const double off : {0.5, 2.0, 4.0, 15.0}) {
    const auto measure = [&](int64_t values) {
      const double share = double(values) / 11520;
      return off * (1 + share) * 0.5 * (std::exp(-8 * share) - std::exp(-8));
    };
    for (const double ratio : {1.005, 1.02, 1.1}) {
      const double limit = std::log(ratio);
      const Outcome outcome = Search(curve, limit, measure);
      EXPECT_LE(measure(outcome.best), limit);
      // 1 % of the cache less fails.
      EXPECT_GT(measure(outcome.best - 116), limit) << off << " " << ratio;
      EXPECT_LE(outcome.measurements, 7u) << off << " " << ratio;
    }
  }
}

TEST(BudgetSearchTest, GivesTheWholeCacheWhenNothingElseIsWithinTheLimit) {
  const Outcome outcome =
      Search(ExponentialCurve(1000), 0.01, [](int64_t) { return std::nan(""); });
  EXPECT_EQ(outcome.best, 1000);
  EXPECT_LE(outcome.measurements, 8u);
}

TEST(BudgetSearchTest, ALossThatIsNotFiniteIsBeyondTheLimitAndNothingMore) {
  const Curve curve = ExponentialCurve(11520);
  // Finite and within the limit from a size on, in the middle of what would do.
  for (const double broken : {HUGE_VAL, std::nan("")}) {
    for (const int64_t first_finite : {3000, 6000, 11000}) {
      const auto measure = [&](int64_t values) { return values < first_finite ? broken : 0.001; };
      const Outcome outcome = Search(curve, std::log(1.02), measure);
      EXPECT_GE(outcome.best, first_finite);
      EXPECT_LE(outcome.best, first_finite + 11520 / 8) << "of which half is kept, and so on";
      EXPECT_LE(outcome.measurements, 8u);
    }
  }
}

TEST(BudgetSearchTest, GoesDownToTheSmallestWhenAllAreWithinTheLimit) {
  const Outcome outcome = Search(ExponentialCurve(3200), 0.01, [](int64_t) { return -0.001; });
  // Nothing tells that the smallest is within the limit but measuring it, half by half.
  EXPECT_LE(outcome.best, 100 + 32);
}

TEST(BudgetSearchTest, ACurveOfOnePointNeedsNoSearch) {
  EXPECT_EQ(BudgetSearch({{8, 0.0}}, 0.1).Next(), std::nullopt);
  EXPECT_EQ(BudgetSearch({{8, 0.0}}, 0.1).Best(), 8);
}

}  // namespace
}  // namespace latentforge::factorize
