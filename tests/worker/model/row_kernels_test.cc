#include "worker/model/row_kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/worker/model/reference.h"
#include "worker/model/row_functions.h"

namespace latentforge::model {
namespace {

template <typename T>
T Narrow(double value) {
  if constexpr (std::is_same_v<T, float>) {
    return static_cast<float>(value);
  } else {
    const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
    return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
  }
}

double Wide(float value) { return value; }
double Wide(Bf16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

template <typename T>
std::vector<T> Random(size_t count, uint32_t seed, double scale = 1.0) {
  std::vector<T> values;
  for (const double value : RandomValues(count, seed, scale)) values.push_back(Narrow<T>(value));
  return values;
}

// Each operation rounds a handful of times: fp32 to 2^-24, and its sums run over 32
// partial sums; bf16 rounds to 2^-9, twice in the norm.
template <typename T>
constexpr double kTolerance = std::is_same_v<T, float> ? 2e-6 : 1e-2;

template <typename T>
class RowFunctionsTest : public testing::Test {
 protected:
  struct Named {
    std::string name;
    RowFunctions<T> functions;
  };

  static std::vector<Named> Available() {
    std::vector<Named> all;
    const auto add = [&](const char* name, const RowFunctions<float>& wide,
                         const RowFunctions<Bf16>& narrow) {
      if constexpr (std::is_same_v<T, float>) {
        all.push_back({name, wide});
      } else {
        all.push_back({name, narrow});
      }
    };
    add("generic", generic::kFloat, generic::kBf16);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      add("v3", x86_v3::kFloat, x86_v3::kBf16);
    }
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
      add("v4", x86_v4::kFloat, x86_v4::kBf16);
    }
#endif
    return all;
  }

  static void ExpectNear(double seen, double expected, const std::string& where) {
    EXPECT_NEAR(seen, expected, kTolerance<T> * std::max(1.0, std::abs(expected))) << where;
  }
};

using ElementTypes = testing::Types<float, Bf16>;
TYPED_TEST_SUITE(RowFunctionsTest, ElementTypes);

// 77 is no multiple of any register's width.
constexpr int64_t kWidth = 77;

TYPED_TEST(RowFunctionsTest, Norm) {
  const auto x = Random<TypeParam>(kWidth, 1, 3.0);
  const auto weight = Random<TypeParam>(kWidth, 2);
  double squares = 0;
  for (const TypeParam value : x) squares += Wide(value) * Wide(value);
  const double scale = 1 / std::sqrt(squares / kWidth + 1e-5);
  for (const auto& [name, functions] : this->Available()) {
    std::vector<TypeParam> out(kWidth);
    functions.norm(x.data(), weight.data(), kWidth, 1e-5f, out.data());
    for (size_t i = 0; i < out.size(); ++i) {
      this->ExpectNear(Wide(out[i]), Wide(x[i]) * scale * Wide(weight[i]), name);
    }
  }
}

TYPED_TEST(RowFunctionsTest, SiluMultiply) {
  auto gate = Random<TypeParam>(kWidth, 3, 5.0);
  gate[0] = Narrow<TypeParam>(-200.0);
  gate[1] = Narrow<TypeParam>(200.0);
  const auto up = Random<TypeParam>(kWidth, 4);
  for (const auto& [name, functions] : this->Available()) {
    std::vector<TypeParam> out(kWidth);
    functions.silu_multiply(gate.data(), up.data(), kWidth, out.data());
    for (size_t i = 0; i < out.size(); ++i) {
      const double g = Wide(gate[i]);
      this->ExpectNear(Wide(out[i]), g / (1 + std::exp(-g)) * Wide(up[i]), name);
    }
  }
}

TYPED_TEST(RowFunctionsTest, Rope) {
  constexpr int64_t kHalf = 20, kHeads = 3;
  const auto x = Random<TypeParam>(2 * kHalf * kHeads, 5);
  const auto cos = Random<TypeParam>(kHalf, 6), sin = Random<TypeParam>(kHalf, 7);
  for (const auto& [name, functions] : this->Available()) {
    auto y = x;
    functions.rope(y.data(), cos.data(), sin.data(), kHalf, kHeads);
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t j = i % kHalf;
      const bool first = i % (2 * kHalf) < kHalf;
      const double other = Wide(x[first ? i + kHalf : i - kHalf]);
      const double expected = Wide(x[i]) * Wide(cos[j]) + (first ? -1 : 1) * other * Wide(sin[j]);
      this->ExpectNear(Wide(y[i]), expected, name);
    }
  }
}

TYPED_TEST(RowFunctionsTest, LogSumExpInPieces) {
  const auto x = Random<TypeParam>(2 * kWidth, 8, 20.0);
  double expected = 0;
  for (const TypeParam value : x) expected += std::exp(Wide(value));
  for (const auto& [name, functions] : this->Available()) {
    float maximum = -std::numeric_limits<float>::infinity(), sum = 0;
    functions.log_sum_exp(x.data(), kWidth, &maximum, &sum);
    functions.log_sum_exp(x.data() + kWidth, kWidth, &maximum, &sum);
    // The inputs are exact here, so bf16 is as good as fp32.
    EXPECT_NEAR(maximum + std::log(static_cast<double>(sum)), std::log(expected), 1e-5) << name;
  }
}

// d/dx_i of sum_j weights_j f(x)_j by central differences in double: with h = 1e-5 and
// derivatives of some tens the error is below 1e-8, far below fp32's.
template <typename F>
double Slope(std::vector<double> x, size_t i, const std::vector<double>& weights, const F& f) {
  constexpr double kStep = 1e-5;
  const auto loss = [&](double shift) {
    std::vector<double> moved = x;
    moved[i] += shift;
    const std::vector<double> y = f(moved);
    return std::inner_product(y.begin(), y.end(), weights.begin(), 0.0);
  };
  return (loss(kStep) - loss(-kStep)) / (2 * kStep);
}

template <typename T>
std::vector<double> Widen(const std::vector<T>& values) {
  std::vector<double> wide;
  for (const T value : values) wide.push_back(Wide(value));
  return wide;
}

TYPED_TEST(RowFunctionsTest, NormGradient) {
  const auto x = Random<TypeParam>(kWidth, 11, 3.0);
  const auto weight = Random<TypeParam>(kWidth, 12), gradient = Random<TypeParam>(kWidth, 13);
  const auto norm = [&](const std::vector<double>& row) {
    const double squares = std::inner_product(row.begin(), row.end(), row.begin(), 0.0);
    std::vector<double> y = row;
    for (size_t i = 0; i < y.size(); ++i) {
      y[i] *= Wide(weight[i]) / std::sqrt(squares / kWidth + 1e-5);
    }
    return y;
  };
  for (const auto& [name, functions] : this->Available()) {
    std::vector<TypeParam> out(kWidth);
    functions.norm_gradient(x.data(), weight.data(), gradient.data(), kWidth, 1e-5f, out.data());
    for (size_t i = 0; i < out.size(); ++i) {
      this->ExpectNear(Wide(out[i]), Slope(Widen(x), i, Widen(gradient), norm), name);
    }
  }
}

TYPED_TEST(RowFunctionsTest, SiluMultiplyGradient) {
  auto gate_up = Random<TypeParam>(2 * kWidth, 14, 3.0);
  gate_up[0] = Narrow<TypeParam>(-200.0);
  gate_up[1] = Narrow<TypeParam>(200.0);
  const auto gradient = Random<TypeParam>(kWidth, 15);
  const auto activate = [](const std::vector<double>& row) {
    std::vector<double> y(kWidth);
    for (size_t i = 0; i < y.size(); ++i) {
      y[i] = row[i] / (1 + std::exp(-row[i])) * row[kWidth + i];
    }
    return y;
  };
  for (const auto& [name, functions] : this->Available()) {
    std::vector<TypeParam> out(2 * kWidth);
    functions.silu_multiply_gradient(gate_up.data(), gradient.data(), kWidth, out.data());
    for (size_t i = 0; i < out.size(); ++i) {
      this->ExpectNear(Wide(out[i]), Slope(Widen(gate_up), i, Widen(gradient), activate), name);
    }
  }
}

TYPED_TEST(RowFunctionsTest, SoftmaxError) {
  const auto logits = Random<TypeParam>(kWidth, 16, 4.0);
  double total = 0;
  for (const TypeParam value : logits) total += std::exp(Wide(value));
  const auto log_total = static_cast<float>(std::log(total));
  for (const auto& [name, functions] : this->Available()) {
    for (const int64_t label : {int64_t{-1}, int64_t{0}, int64_t{70}, kWidth}) {
      auto row = logits;
      functions.softmax_error(row.data(), kWidth, log_total, label);
      for (int64_t i = 0; i < kWidth; ++i) {
        const double expected = std::exp(Wide(logits[i])) / total - (i == label ? 1 : 0);
        // One rounding of the result; before it an exponent of up to 12 in fp32.
        const double relative = std::is_same_v<TypeParam, float> ? 0 : 0x1p-8;
        EXPECT_NEAR(Wide(row[i]), expected, relative * std::abs(expected) + 2e-6) << name;
      }
    }
    auto row = logits;
    functions.softmax_error(row.data(), kWidth, std::numeric_limits<float>::infinity(), -1);
    for (const TypeParam value : row) EXPECT_EQ(Wide(value), 0) << name;
  }
}

TYPED_TEST(RowFunctionsTest, Divergence) {
  const auto log_total = [](const std::vector<TypeParam>& row) {
    double total = 0;
    for (const TypeParam value : row) total += std::exp(Wide(value));
    return std::log(total);
  };
  // Widths around the blocks of the sum, with and without a rest.
  for (const int64_t width : {int64_t{1}, int64_t{31}, int64_t{2048}, int64_t{2048 + 37}}) {
    const auto target = Random<TypeParam>(width, 17, 4.0);
    const auto logits = Random<TypeParam>(width, 18, 4.0);
    const double target_total = log_total(target), total = log_total(logits);
    double expected = 0;
    for (int64_t i = 0; i < width; ++i) {
      const double a = Wide(target[i]) - target_total, b = Wide(logits[i]) - total;
      expected += std::exp(a) * (a - b);
    }
    for (const auto& [name, functions] : this->Available()) {
      auto row = logits;
      const double divergence =
          functions.divergence(target.data(), row.data(), width, float(target_total), float(total));
      // Both totals and each exponent (of up to 16) are rounded to fp32, 1e-6 absolutely; the
      // terms p (a - b) keep that relation to their sum of absolute values, below 10.
      EXPECT_NEAR(divergence, expected, 2e-5) << name << " " << width;
      for (int64_t i = 0; i < width; ++i) {
        const double error =
            std::exp(Wide(logits[i]) - total) - std::exp(Wide(target[i]) - target_total);
        const double relative = std::is_same_v<TypeParam, float> ? 0 : 0x1p-8;
        EXPECT_NEAR(Wide(row[i]), error, relative * std::abs(error) + 2e-6) << name;
      }
    }
  }
}

// 1 - p of a likely label is lost where p is rounded first.
TEST(RowFunctionsBf16, SoftmaxErrorOfALikelyLabel) {
  std::vector<Bf16> row = {Narrow<Bf16>(7.0), Narrow<Bf16>(0.0)};
  generic::kBf16.softmax_error(row.data(), 2, std::log(std::exp(7.0f) + 1.0f), 0);
  EXPECT_NEAR(Wide(row[0]), -1 / (std::exp(7.0) + 1), 1e-5);
}

TYPED_TEST(RowFunctionsTest, NanIsKept) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const size_t where : {size_t{0}, size_t{40}, size_t{kWidth - 1}}) {
    auto x = Random<TypeParam>(kWidth, 9);
    if constexpr (std::is_same_v<TypeParam, float>) {
      x[where] = nan;
    } else {
      x[where] = Bf16{0x7fff};  // rounding must not turn this one into -0
    }
    const auto weight = Random<TypeParam>(kWidth, 10);
    for (const auto& [name, functions] : this->Available()) {
      std::vector<TypeParam> out(kWidth);
      functions.norm(x.data(), weight.data(), kWidth, 1e-5f, out.data());
      EXPECT_TRUE(std::isnan(Wide(out[3]))) << name;
      functions.silu_multiply(x.data(), weight.data(), kWidth, out.data());
      EXPECT_TRUE(std::isnan(Wide(out[where]))) << name;
      float maximum = -std::numeric_limits<float>::infinity(), sum = 0;
      functions.log_sum_exp(x.data(), kWidth, &maximum, &sum);
      EXPECT_TRUE(std::isnan(maximum + std::log(sum))) << name << " at " << where;
      auto row = weight;
      EXPECT_TRUE(std::isnan(functions.divergence(x.data(), row.data(), kWidth, 0.0f, 0.0f)))
          << name << " at " << where;
      functions.norm_gradient(x.data(), weight.data(), weight.data(), kWidth, 1e-5f, out.data());
      EXPECT_TRUE(std::isnan(Wide(out[3]))) << name;
      functions.norm_gradient(weight.data(), weight.data(), x.data(), kWidth, 1e-5f, out.data());
      EXPECT_TRUE(std::isnan(Wide(out[3]))) << name;
    }
  }
}

TEST(RowKernels, RowsAreStridedAndPositionsRepeat) {
  // Two sequences of two rows; each row of 4 lies in a row of 6.
  std::vector<float> x(24, 1.0f);
  const std::vector<float> cos = {1, 1, 0, 0}, sin = {0, 0, 1, 1};  // 0 and 90 degrees
  RopeRows<float>({x.data(), 4, 4, 6}, cos.data(), sin.data(), 2, 2);
  for (const size_t sequence : {0, 1}) {
    const float* const row = x.data() + sequence * 12;
    EXPECT_EQ(std::vector<float>(row, row + 6), std::vector<float>({1, 1, 1, 1, 1, 1}));
    EXPECT_EQ(std::vector<float>(row + 6, row + 12), std::vector<float>({-1, -1, 1, 1, 1, 1}));
  }
}

}  // namespace
}  // namespace latentforge::model
