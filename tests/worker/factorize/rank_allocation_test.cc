#include "worker/factorize/rank_allocation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace latentforge::factorize {
namespace {

Spectra RandomSpectra(size_t layers, size_t width, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform(0.1, 3.0);
  Spectra spectra(layers);
  for (auto& spectrum : spectra) {
    const double decay = uniform(random);
    const double scale = uniform(random);
    for (size_t i = 0; i < width; ++i) {
      spectrum.push_back(scale * std::exp(-decay * double(i) / 4) * uniform(random));
    }
    std::sort(spectrum.rbegin(), spectrum.rend());
  }
  return spectra;
}

// The greedy algorithm as the paper (and, with `code`, the public code) states
// it: every step looks at every layer and sums from scratch.
std::vector<int64_t> BruteForce(bool code, double budget, const Spectra& spectra) {
  const int64_t width = int64_t(spectra[0].size());
  const int64_t layers = int64_t(spectra.size());
  const auto uniform = int64_t(std::floor(budget * double(width) + 1e-9));
  const int64_t start = std::max<int64_t>(1, code ? uniform / 2 : uniform / 4);
  const int64_t cap = code ? std::min(width, 2 * uniform) : width;
  std::vector<int64_t> ranks(layers, start);
  const auto total = int64_t(std::floor(budget * double(width * layers) + 1e-9));
  while (std::accumulate(ranks.begin(), ranks.end(), int64_t{0}) < total) {
    int64_t best = -1;
    double best_score = -1;
    for (int64_t l = 0; l < layers; ++l) {
      const int64_t r = ranks[l];
      if (r >= cap) continue;
      const auto& s = spectra[l];
      const double all = std::accumulate(s.begin(), s.end(), 0.0);
      const double tail = std::accumulate(s.rbegin(), s.rend() - r, 0.0);
      double score = s[r] / tail;
      if (code) {
        score = (s[r] / all) / std::max(tail / all, 1e-12) *
                std::sqrt(double(layers - l) / (double(layers + 1) / 2)) /
                std::sqrt(double(r) / double(start));
      }
      if (score > best_score * (1 + 1e-13)) {
        best = l;
        best_score = score;
      }
    }
    if (best < 0) break;
    ++ranks[best];
  }
  return ranks;
}

// Oracle 12 for cached values: r values fit the budget and r + 1 do not, at
// exact fractions as well as between them.
TEST(RankAllocationTest, ValuesWithinIsTheLargestThatFits) {
  for (int64_t width = 1; width <= 256; ++width) {
    for (int64_t r = 1; r <= width; ++r) {
      EXPECT_EQ(ValuesWithin(double(r) / double(width), width), r);
      EXPECT_EQ(ValuesWithin((double(r) + 0.5) / double(width), width), r);
      EXPECT_EQ(ValuesWithin((double(r) - 1e-6) / double(width), width), r - 1);
    }
  }
  EXPECT_EQ(ValuesWithin(2.0 / 3, 192), 128);
}

TEST(RankAllocationTest, EqualsBruteForce) {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const Spectra spectra = RandomSpectra(2 + seed % 5, 8 + 3 * (seed % 4), seed);
    for (const double budget : {0.15, 1.0 / 3, 0.5, 2.0 / 3, 0.9, 1.0}) {
      for (const bool code : {false, true}) {
        const auto ranks = AllocateRanks(code ? RankAllocation::kCareCode : RankAllocation::kCare,
                                         budget, spectra);
        ASSERT_TRUE(ranks.ok()) << ranks.status();
        EXPECT_EQ(*ranks, BruteForce(code, budget, spectra))
            << "seed " << seed << " budget " << budget << " code " << code;
      }
    }
  }
}

TEST(RankAllocationTest, NeverExceedsTheBudgetOrTheWidth) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    const size_t layers = 1 + random() % 9;
    const size_t width = 2 + random() % 40;
    const double budget = double(1 + random() % 1000) / 1000;
    const Spectra spectra = RandomSpectra(layers, width, random());
    for (const auto allocation :
         {RankAllocation::kUniform, RankAllocation::kCare, RankAllocation::kCareCode}) {
      const auto ranks = AllocateRanks(allocation, budget, spectra);
      if (budget * double(width) < 1) {
        EXPECT_EQ(ranks.status().code(), absl::StatusCode::kOutOfRange);
        continue;
      }
      ASSERT_TRUE(ranks.ok()) << ranks.status();
      const int64_t total = std::accumulate(ranks->begin(), ranks->end(), int64_t{0});
      EXPECT_LE(double(total), budget * double(layers * width) + 1e-6);
      EXPECT_GE(*std::min_element(ranks->begin(), ranks->end()), 1);
      EXPECT_LE(*std::max_element(ranks->begin(), ranks->end()), int64_t(width));
      // The greedy ones leave nothing unused unless the code's cap stops them.
      if (allocation == RankAllocation::kCare) {
        EXPECT_EQ(total, ValuesWithin(budget, int64_t(layers * width)));
      }
    }
  }
}

TEST(RankAllocationTest, SilentLayersGetNoMoreThanTheirStart) {
  Spectra spectra = RandomSpectra(3, 16, 5);
  std::fill(spectra[1].begin(), spectra[1].end(), 0.0);
  const auto ranks = AllocateRanks(RankAllocation::kCare, 0.5, spectra);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_EQ((*ranks)[1], 2);
}

TEST(RankAllocationTest, RefusesBudgetsOutsideTheRange) {
  for (const double budget : {0.0, -0.5, 1.01, std::nan("")}) {
    EXPECT_EQ(
        AllocateRanks(RankAllocation::kUniform, budget, RandomSpectra(2, 8, 1)).status().code(),
        absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(AllocateRanks(RankAllocation::kUniform, 0.5, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(AllocateRanks(RankAllocation::kGlobal, 0.5, {{2, 1}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(RankAllocationTest, ProfileIsChecked) {
  const RankProfile good = {{4, 4}, {2, 6}};
  EXPECT_TRUE(CheckProfile(good, 2, 8, /*joint=*/false, 0.5).ok());
  const auto message = [](const RankProfile& profile, double budget, bool joint = false) {
    const absl::Status status = CheckProfile(profile, 2, 8, joint, budget);
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
    return std::string(status.message());
  };
  EXPECT_NE(message({{4, 4}}, 1).find("has 1 layers, expected the model's 2"), std::string::npos);
  EXPECT_NE(message({{4, 4}, {4, 9}}, 1).find("layer 1: rankV is 9"), std::string::npos);
  EXPECT_NE(message({{0, 4}, {4, 4}}, 1).find("layer 0: rankK is 0"), std::string::npos);
  EXPECT_NE(message({{4, 4}, {3, 6}}, 0.5).find("caches 17 values a token, expected at most 16"),
            std::string::npos);
  // The layout that the job asks for decides, not the profile's first layer.
  EXPECT_TRUE(CheckProfile({{.joint = 16}, {.joint = 1}}, 2, 8, /*joint=*/true, 1).ok());
  EXPECT_NE(message(good, 1, /*joint=*/true).find("rankK is 4, expected none in a joint one"),
            std::string::npos);
  EXPECT_NE(message({{.joint = 5}, {.joint = 5}}, 1).find("rankK is 0"), std::string::npos);
}

TEST(RankAllocationTest, UniformRanksAreMultiplesOrWhole) {
  const Spectra spectra = RandomSpectra(3, 10, 1);
  const auto ranks = [&](double budget, int64_t multiple) {
    return AllocateRanks(RankAllocation::kUniform, budget, spectra, multiple);
  };
  EXPECT_EQ(ranks(0.75, 1).value(), std::vector<int64_t>(3, 7));
  EXPECT_EQ(ranks(0.75, 4).value(), std::vector<int64_t>(3, 4));
  EXPECT_EQ(ranks(0.4, 4).value(), std::vector<int64_t>(3, 4));
  EXPECT_EQ(ranks(1, 4).value(), std::vector<int64_t>(3, 10));
  EXPECT_EQ(ranks(1, 32).value(), std::vector<int64_t>(3, 10));
  EXPECT_EQ(ranks(0.3, 4).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ranks(0.5, 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(AllocateRanks(RankAllocation::kCare, 0.5, spectra, 2).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace latentforge::factorize
