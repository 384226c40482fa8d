#include "worker/model/attention_functions.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/worker/model/reference.h"

namespace latentforge::model {
namespace {

constexpr size_t kKeys = 6, kQueries = 32;
constexpr float kScale = 0.25f;

double Wide(float value) { return value; }
double Wide(Bf16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

std::vector<float> Random(size_t count, uint32_t seed, double scale = 1.0) {
  std::vector<float> values;
  for (const double value : RandomValues(count, seed, scale)) {
    values.push_back(static_cast<float>(value));
  }
  return values;
}

// Where element (row, column) of a right-hand matrix [rows, width] lies.
template <typename T>
size_t Right(size_t row, size_t column, size_t width) {
  if (std::is_same_v<T, float>) return row * width + column;
  return row / 2 * 2 * width + 2 * column + row % 2;
}

// fp32: an exponent of up to 30 is rounded to 2^-24 of it; bf16: the result to 2^-9.
template <typename T>
constexpr double kTolerance = std::is_same_v<T, float> ? 4e-6 : 0x1p-8;

template <typename T>
class AttentionFunctionsTest : public testing::Test {
 protected:
  struct Named {
    std::string name;
    AttentionFunctions<T> functions;
  };

  static std::vector<Named> Available() {
    std::vector<Named> all;
    const auto add = [&](const char* name, const AttentionFunctions<float>& wide,
                         const AttentionFunctions<Bf16>& narrow) {
      if constexpr (std::is_same_v<T, float>) {
        all.push_back({name, wide});
      } else {
        all.push_back({name, narrow});
      }
    };
    add("generic", generic::kFloatAttention, generic::kBf16Attention);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      add("v3", x86_v3::kFloatAttention, x86_v3::kBf16Attention);
    }
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
      add("v4", x86_v4::kFloatAttention, x86_v4::kBf16Attention);
    }
#endif
    return all;
  }

  // Any bits that are not NaN will do for what only moves elements.
  static std::vector<T> Counted(size_t count) {
    std::vector<T> values(count);
    for (size_t i = 0; i < count; ++i) {
      if constexpr (std::is_same_v<T, float>) {
        values[i] = static_cast<float>(i);
      } else {
        values[i].bits = static_cast<uint16_t>(i % 0x7000);
      }
    }
    return values;
  }

  static void ExpectNear(double seen, double expected, const std::string& where) {
    EXPECT_NEAR(seen, expected, kTolerance<T> * std::max(std::abs(expected), 1e-3)) << where;
  }

  const std::vector<float> scores_ = Random(kKeys * kQueries, 1, 20.0);
  const std::vector<float> grown_ = Random(kKeys * kQueries, 2);
  const std::vector<float> delta_ = Random(kQueries, 3);
  const ScoreBlock block_{scores_.data(), grown_.data(), kKeys, kQueries, kScale};

  float Score(size_t key, size_t query) const { return scores_[key * kQueries + query]; }
  // The exponential of a score above a maximum.
  double Exp(size_t key, size_t query, double maximum) const {
    return std::exp((Score(key, query) - maximum) * kScale);
  }
};

using ElementTypes = testing::Types<float, Bf16>;
TYPED_TEST_SUITE(AttentionFunctionsTest, ElementTypes);

TYPED_TEST(AttentionFunctionsTest, MaximumIsRaisedWhereScoresAreFarAbove) {
  for (const auto& [name, functions] : this->Available()) {
    std::vector<float> maximum(kQueries, std::numeric_limits<float>::lowest());
    for (size_t i = 0; i < kQueries; i += 2) maximum[i] = this->Score(0, i);
    const std::vector<float> before = maximum;
    std::vector<float> factor(kQueries);
    EXPECT_TRUE(functions.raise_maximum(this->block_, maximum.data(), factor.data())) << name;
    for (size_t i = 0; i < kQueries; ++i) {
      float top = this->Score(0, i);
      for (size_t k = 1; k < kKeys; ++k) top = std::max(top, this->Score(k, i));
      const bool raised = (double{top} - before[i]) * kScale > 8.0;
      EXPECT_EQ(maximum[i], raised ? top : before[i]) << name;
      EXPECT_NEAR(factor[i], raised ? std::exp((double{before[i]} - top) * kScale) : 1.0, 1e-6)
          << name;
    }
    EXPECT_FALSE(functions.raise_maximum(this->block_, maximum.data(), factor.data())) << name;
  }
}

TYPED_TEST(AttentionFunctionsTest, MaximumKeepsNanAndPassesHiddenScores) {
  std::vector<float> scores(kKeys * kQueries, -std::numeric_limits<float>::infinity());
  scores[2 * kQueries + 5] = std::numeric_limits<float>::quiet_NaN();
  const ScoreBlock block{scores.data(), nullptr, kKeys, kQueries, kScale};
  for (const auto& [name, functions] : this->Available()) {
    std::vector<float> maximum(kQueries, std::numeric_limits<float>::lowest());
    std::vector<float> factor(kQueries), sum(kQueries);
    std::vector<TypeParam> out(kKeys * kQueries);
    functions.raise_maximum(block, maximum.data(), factor.data());
    functions.weights(block, maximum.data(), sum.data(), out.data());
    for (size_t i = 0; i < kQueries; ++i) {
      EXPECT_EQ(std::isnan(maximum[i]), i == 5) << name;
      EXPECT_EQ(std::isnan(sum[i]), i == 5) << name;
      EXPECT_TRUE(i == 5 || sum[i] == 0) << name;
    }
  }
}

TYPED_TEST(AttentionFunctionsTest, Weights) {
  const std::vector<float> maximum = Random(kQueries, 4, 5.0);
  for (const auto& [name, functions] : this->Available()) {
    std::vector<float> sum(kQueries, 2.0f);
    std::vector<TypeParam> out(kKeys * kQueries);
    functions.weights(this->block_, maximum.data(), sum.data(), out.data());
    for (size_t i = 0; i < kQueries; ++i) {
      double expected = 2.0;
      for (size_t k = 0; k < kKeys; ++k) {
        const double e = this->Exp(k, i, maximum[i]);
        expected += e;
        this->ExpectNear(Wide(out[Right<TypeParam>(k, i, kQueries)]), e, name);
      }
      EXPECT_NEAR(sum[i], expected, 4e-6 * expected) << name;
    }
  }
}

TYPED_TEST(AttentionFunctionsTest, Gradients) {
  const std::vector<float> maximum = Random(kQueries, 5, 5.0), share = Random(kQueries, 6);
  for (const auto& [name, functions] : this->Available()) {
    std::vector<TypeParam> p(kKeys * kQueries), ds(p.size()), pairs(p.size());
    functions.gradients(this->block_, maximum.data(), share.data(), this->delta_.data(), p.data(),
                        ds.data(), pairs.data());
    for (size_t k = 0; k < kKeys; ++k) {
      for (size_t i = 0; i < kQueries; ++i) {
        const size_t at = k * kQueries + i;
        const double expected = share[i] * this->Exp(k, i, maximum[i]);
        const double difference = double{this->grown_[at]} - this->delta_[i];
        this->ExpectNear(Wide(p[at]), expected, name);
        this->ExpectNear(Wide(ds[at]), expected * difference, name);
        if (std::is_same_v<TypeParam, Bf16>) {
          EXPECT_EQ(Wide(pairs[Right<TypeParam>(k, i, kQueries)]), Wide(ds[at])) << name;
        }
      }
    }
  }
}

TYPED_TEST(AttentionFunctionsTest, DotAndScale) {
  constexpr size_t kWidth = 77;
  const std::vector<float> x = Random(kWidth, 7);
  for (const auto& [name, functions] : this->Available()) {
    std::vector<TypeParam> scaled(kWidth);
    functions.scale(x.data(), 3.0f, kWidth, scaled.data());
    double expected = 0;
    for (size_t i = 0; i < kWidth; ++i) {
      this->ExpectNear(Wide(scaled[i]), 3.0 * x[i], name);
      expected += Wide(scaled[i]) * Wide(scaled[i]);
    }
    // Products of what was stored are exact but for their fp32 sums.
    EXPECT_NEAR(functions.dot(scaled.data(), scaled.data(), kWidth), expected, 4e-6 * expected);
  }
}

TYPED_TEST(AttentionFunctionsTest, RightHandMatricesAndTransposes) {
  constexpr size_t kRows = 64, kWidth = 32;
  const std::vector<TypeParam> x = this->Counted(kRows * kWidth);
  for (const auto& [name, functions] : this->Available()) {
    std::vector<TypeParam> pair(x.size()), turned_pair(x.size()), turned(x.size());
    functions.pair(x.data(), kRows, kWidth, pair.data());
    functions.transpose_pair(x.data(), kRows, kWidth, turned_pair.data());
    functions.transpose(x.data(), kRows, kWidth, turned.data());
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t i = 0; i < kWidth; ++i) {
        const double expected = Wide(x[r * kWidth + i]);
        ASSERT_EQ(Wide(pair[Right<TypeParam>(r, i, kWidth)]), expected) << name;
        ASSERT_EQ(Wide(turned_pair[Right<TypeParam>(i, r, kRows)]), expected) << name;
        ASSERT_EQ(Wide(turned[i * kRows + r]), expected) << name;
      }
    }
  }
}

}  // namespace
}  // namespace latentforge::model
