#include "worker/factorize/global_ranks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>

namespace latentforge::factorize {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Spectra RandomSpectra(const std::vector<int64_t>& widths, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform(0.1, 3.0);
  Spectra spectra;
  for (const int64_t width : widths) {
    const double decay = uniform(random);
    const double scale = uniform(random);
    std::vector<double>& spectrum = spectra.emplace_back();
    for (int64_t i = 0; i < width; ++i) {
      spectrum.push_back(scale * std::exp(-decay * double(i) / 2) * uniform(random));
    }
    std::sort(spectrum.rbegin(), spectrum.rend());
  }
  return spectra;
}

int64_t Sum(const std::vector<int64_t>& ranks) {
  return std::accumulate(ranks.begin(), ranks.end(), int64_t{0});
}

bool IsAllowed(int64_t rank, int64_t width, const GlobalRankOptions& options) {
  const int64_t floor =
      (options.floor + options.multiple - 1) / options.multiple * options.multiple;
  return rank == width || (rank % options.multiple == 0 && rank >= std::min(floor, width));
}

// The least discarded sum over all allowed ranks from `problem` on; infinite when
// nothing fits.
double Exhaustive(int64_t values, const Spectra& spectra, const GlobalRankOptions& options,
                  size_t problem = 0) {
  if (problem == spectra.size()) return 0;
  const auto& spectrum = spectra[problem];
  const auto width = int64_t(spectrum.size());
  double best = kInfinity;
  for (int64_t rank = 1; rank <= std::min(width, values); ++rank) {
    if (!IsAllowed(rank, width, options)) continue;
    const double lost = std::accumulate(spectrum.begin() + rank, spectrum.end(), 0.0);
    best = std::min(best, lost + Exhaustive(values - rank, spectra, options, problem + 1));
  }
  return best;
}

std::vector<int64_t> Allocate(int64_t values, const Spectra& spectra,
                              const GlobalRankOptions& options) {
  const auto ranks = AllocateGlobally(values, spectra, options);
  EXPECT_TRUE(ranks.ok()) << ranks.status();
  return ranks.ok() ? *ranks : std::vector<int64_t>(spectra.size(), 0);
}

TEST(GlobalRanksTest, EqualsExhaustiveSearch) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    for (const int64_t multiple : {1, 2, 4}) {
      // Whole multiples, of different widths.
      const Spectra spectra = RandomSpectra({8, 4, 12, 8}, seed);
      for (const int64_t floor : {1, 2, 3, 5}) {
        const GlobalRankOptions options{.floor = floor, .multiple = multiple};
        for (int64_t values = 4; values <= 32; values += 1 + int64_t(seed % 3)) {
          const double least = Exhaustive(values, spectra, options);
          if (least == kInfinity) continue;
          const std::vector<int64_t> ranks = Allocate(values, spectra, options);
          EXPECT_LE(Sum(ranks), values);
          for (size_t i = 0; i < ranks.size(); ++i) {
            EXPECT_TRUE(IsAllowed(ranks[i], int64_t(spectra[i].size()), options)) << ranks[i];
          }
          // Sums of 32 positive fp64 numbers in another order.
          EXPECT_NEAR(2 * PredictedLoss(spectra, ranks), least, 1e-12)
              << "seed " << seed << " values " << values << " multiple " << multiple << " floor "
              << floor;
        }
      }
    }
  }
}

// Widths that are no multiple: never better than the exhaustive minimum, and short of it
// by less than one whole group of the best values that were left out.
TEST(GlobalRanksTest, IsCloseWhereWidthsAreNoMultiple) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const Spectra spectra = RandomSpectra({7, 5, 10, 3}, 50 + seed);
    const GlobalRankOptions options{.floor = 1, .multiple = 4};
    for (int64_t values = 15; values <= 25; ++values) {
      const std::vector<int64_t> ranks = Allocate(values, spectra, options);
      ASSERT_LE(Sum(ranks), values);
      double group = 0;
      for (size_t i = 0; i < ranks.size(); ++i) {
        const auto width = int64_t(spectra[i].size());
        EXPECT_TRUE(IsAllowed(ranks[i], width, options)) << ranks[i] << " of " << width;
        const auto next = spectra[i].begin() + ranks[i];
        group = std::max(
            group,
            std::accumulate(next, next + std::min<int64_t>(4, spectra[i].end() - next), 0.0));
      }
      const double least = Exhaustive(values, spectra, options);
      const double found = 2 * PredictedLoss(spectra, ranks);
      EXPECT_GE(found, least - 1e-12);
      EXPECT_LE(found, least + group + 1e-12);
    }
    EXPECT_EQ(Allocate(25, spectra, options), (std::vector<int64_t>{7, 5, 10, 3}));
  }
}

TEST(GlobalRanksTest, HandExample) {
  const Spectra spectra = {{9, 5, 1, 0.5}, {4, 3, 2, 0}, {0.1, 0.1, 0.1, 0.1}};
  EXPECT_EQ(Allocate(6, spectra, {.floor = 1}), (std::vector<int64_t>{2, 3, 1}));
  EXPECT_EQ(Allocate(8, spectra, {.floor = 2}), (std::vector<int64_t>{3, 3, 2}));
  // Groups of two: means 7, 0.75 | 3.5, 1 | 0.1, 0.1.
  EXPECT_EQ(Allocate(9, spectra, {.floor = 1, .multiple = 2}), (std::vector<int64_t>{2, 4, 2}));
  EXPECT_DOUBLE_EQ(PredictedLoss(spectra, {2, 3, 1}), 0.5 * (1.5 + 0 + 0.3));
  EXPECT_DOUBLE_EQ(PredictedLoss(spectra, {9, -1}), 0.5 * (0 + 9 + 0.4));
}

TEST(GlobalRanksTest, ShortLastGroupsCountByTheirMeanAndFillTheRest) {
  const std::vector<double> eight = {9, 9, 9, 9, 1, 1, 1, 1};
  const std::vector<double> five = {9, 9, 9, 9, 3};
  const GlobalRankOptions options{.floor = 1, .multiple = 4};
  // Two single values of 3 before a group of four with a mean of 1, although its sum is 4.
  EXPECT_EQ(Allocate(16, {eight, five, five}, options), (std::vector<int64_t>{4, 5, 5}));
  EXPECT_EQ(Allocate(18, {eight, five, five}, options), (std::vector<int64_t>{8, 5, 5}));
  // The group of the best mean does not fit, a single value of another latent does.
  EXPECT_EQ(Allocate(9, {{9, 9, 9, 9, 8, 8, 8, 8}, five}, options), (std::vector<int64_t>{4, 5}));
}

TEST(GlobalRanksTest, TiesGoToTheEarliestProblem) {
  const Spectra equal(3, std::vector<double>(4, 1.0));
  EXPECT_EQ(Allocate(3, equal, {.floor = 1}), (std::vector<int64_t>{1, 1, 1}));
  EXPECT_EQ(Allocate(8, equal, {.floor = 1}), (std::vector<int64_t>{4, 3, 1}));
  EXPECT_EQ(Allocate(8, equal, {.floor = 1, .multiple = 2}), (std::vector<int64_t>{4, 2, 2}));
}

TEST(GlobalRanksTest, CapsAtTheWidthAndSpendsWhatIsLeft) {
  const Spectra spectra = {{5, 0, 0}, {100, 90, 80}};
  EXPECT_EQ(Allocate(5, spectra, {.floor = 1}), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(Allocate(1000, spectra, {.floor = 1}), (std::vector<int64_t>{3, 3}));
  EXPECT_EQ(Allocate(6, spectra, {.floor = 8}), (std::vector<int64_t>{3, 3}));
  EXPECT_EQ(Allocate(6, spectra, {.floor = 8, .multiple = 64}), (std::vector<int64_t>{3, 3}));
}

TEST(GlobalRanksTest, LowersFloorsThatDoNotFit) {
  const Spectra spectra = RandomSpectra({16, 16, 4}, 3);
  // 8 + 8 + 4 = 20 values hold the floors; 19 hold a common floor of 7.
  for (const int64_t rank : Allocate(20, spectra, {.floor = 8})) EXPECT_GE(rank, 4);
  EXPECT_EQ(Allocate(20, spectra, {.floor = 8}), (std::vector<int64_t>{8, 8, 4}));
  const std::vector<int64_t> lower = Allocate(19, spectra, {.floor = 8});
  EXPECT_EQ(Sum(lower), 19);
  EXPECT_GE(std::min(lower[0], lower[1]), 7);
  EXPECT_EQ(Allocate(3, spectra, {.floor = 8}), (std::vector<int64_t>{1, 1, 1}));
  EXPECT_EQ(Allocate(13, spectra, {.floor = 12, .multiple = 4}), (std::vector<int64_t>{4, 4, 4}));
}

TEST(GlobalRanksTest, RefusesABudgetBelowOneMultipleEach) {
  const Spectra spectra = RandomSpectra({16, 16, 4}, 4);
  const auto message = [&](int64_t values, const GlobalRankOptions& options) {
    const auto ranks = AllocateGlobally(values, spectra, options);
    EXPECT_EQ(ranks.status().code(), absl::StatusCode::kOutOfRange);
    return std::string(ranks.status().message());
  };
  EXPECT_NE(message(2, {}).find("is 2 cached values a token, expected at least 3"),
            std::string::npos);
  EXPECT_NE(message(-7, {}).find("is -7"), std::string::npos);
  EXPECT_NE(message(19, {.floor = 1, .multiple = 8}).find("at least 20, a rank of 8"),
            std::string::npos);
}

TEST(GlobalRanksTest, RefusesBadArguments) {
  const Spectra good = {{2, 1}, {3, 2}};
  const auto message = [](const Spectra& spectra, const GlobalRankOptions& options) {
    const auto ranks = AllocateGlobally(3, spectra, options);
    EXPECT_EQ(ranks.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(ranks.status().message());
  };
  EXPECT_NE(message(good, {.floor = 0}).find("rank floor is 0"), std::string::npos);
  EXPECT_NE(message(good, {.multiple = -1}).find("rank multiple is -1"), std::string::npos);
  EXPECT_NE(message({}, {}).find("no latents"), std::string::npos);
  EXPECT_NE(message({{1}, {}}, {}).find("spectrum 1 is empty"), std::string::npos);
  EXPECT_NE(message({{1}, {2, std::nan("")}}, {}).find("spectrum 1: value 1 is nan"),
            std::string::npos);
  EXPECT_NE(message({{kInfinity, 1}}, {}).find("value 0 is inf"), std::string::npos);
  EXPECT_NE(message({{1, -1}}, {}).find("value 1 is -1"), std::string::npos);
  EXPECT_NE(message({{1, 2}}, {}).find("value 1 is 2"), std::string::npos);
  const absl::Status zero = AllocateGlobally(3, {{0, 0}, {0}}, {}).status();
  EXPECT_EQ(zero.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(zero.message().find("all spectra are zero"), absl::string_view::npos);
  const int64_t huge = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(Allocate(huge, good, {.floor = huge, .multiple = huge}), (std::vector<int64_t>{2, 2}));
}

TEST(GlobalRanksTest, CurveFallsAndEndsAtFullWidth) {
  for (const int64_t multiple : {1, 4}) {
    const Spectra spectra = RandomSpectra({16, 10, 24, 7}, 5);
    const GlobalRankOptions options{.floor = 2, .multiple = multiple};
    const auto curve = LossCurve(spectra, options, 12);
    ASSERT_TRUE(curve.ok()) << curve.status();
    EXPECT_LE(curve->size(), 12u);
    EXPECT_GE(curve->size(), 6u);
    EXPECT_EQ(curve->front().first, multiple == 1 ? 8 : 16);
    EXPECT_EQ(curve->back().first, 57);
    EXPECT_EQ(curve->back().second, 0);
    for (size_t i = 0; i < curve->size(); ++i) {
      const auto& [values, loss] = (*curve)[i];
      EXPECT_EQ(loss, PredictedLoss(spectra, Allocate(values, spectra, options)));
      if (i == 0) continue;
      EXPECT_GT(values, (*curve)[i - 1].first);
      EXPECT_LE(loss, (*curve)[i - 1].second);
    }
  }
}

TEST(GlobalRanksTest, CurveOfNarrowLatentsAndBadArguments) {
  const auto point = LossCurve({{1}, {2}}, {}, 5);
  ASSERT_TRUE(point.ok()) << point.status();
  EXPECT_EQ(*point, (std::vector<std::pair<int64_t, double>>{{2, 0.0}}));
  const auto every = LossCurve({{2, 1}, {4, 3}}, {.floor = 1}, 1000);
  ASSERT_TRUE(every.ok()) << every.status();
  EXPECT_EQ(*every, (std::vector<std::pair<int64_t, double>>{{2, 2.0}, {3, 0.5}, {4, 0.0}}));
  EXPECT_EQ(LossCurve({{1}}, {}, 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LossCurve({}, {}, 5).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(GlobalRanksTest, IsDeterministic) {
  const Spectra spectra = RandomSpectra(std::vector<int64_t>(12, 40), 6);
  const std::vector<int64_t> first = Allocate(200, spectra, {});
  EXPECT_EQ(first, Allocate(200, spectra, {}));
  EXPECT_EQ(Sum(first), 200);
}

}  // namespace
}  // namespace latentforge::factorize
