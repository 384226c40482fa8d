#include "worker/model/layer_gradients.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/worker/model/reference.h"

namespace latentforge::model {
namespace {

constexpr int64_t kLength = 5;
constexpr int64_t kSequences = 3;
constexpr int64_t kRows = kSequences * kLength;

at::Tensor Random(at::IntArrayRef shape, uint32_t seed) {
  const at::Tensor result = at::empty(shape, at::kDouble);
  const std::vector<double> values = RandomValues(static_cast<size_t>(result.numel()), seed, 1.5);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<double>());
  return result;
}

struct Operation {
  std::string name;
  int64_t width;  // of a row that goes in
  // For an input of any type; tables and weights are made for it.
  std::function<at::Tensor(const at::Tensor& x)> apply;
};

// Attention of 6 heads of 5 to 2 KV heads, all in one row of 50.
at::Tensor Attend(const at::Tensor& x, std::optional<int64_t> window) {
  const auto heads = [&](int64_t begin, int64_t count) {
    return x.narrow(1, begin, 5 * count).unflatten(1, {count, 5});
  };
  return AttentionGraph(heads(0, 6), heads(30, 2), heads(40, 2), window);
}

// Widths 50 to 154: no multiple of any register's width.
std::vector<Operation> Operations() {
  return {
      {"norm", 77,
       [](const at::Tensor& x) {
         return RmsNormGraph(x, Random({77}, 2).to(x.scalar_type()), 1e-5);
       }},
      {"heads", 7 * 11,
       [](const at::Tensor& x) {
         const at::Tensor heads = x.reshape({kRows, 7, 11});
         return RmsNormGraph(heads, Random({11}, 3).to(x.scalar_type()), 1e-5).flatten(1);
       }},
      {"activation", 154, [](const at::Tensor& x) { return SiluMultiplyGraph(x); }},
      {"rope", 66,
       [](const at::Tensor& x) {
         const at::Tensor angles = Random({kLength + 2, 11}, 4);
         const RopeTable table{angles.cos().to(x.scalar_type()), angles.sin().to(x.scalar_type())};
         return RopeGraph(x, kLength, table, InverseRope(table));
       }},
      {"attention", 50, [](const at::Tensor& x) { return Attend(x, std::nullopt); }},
      {"window", 50, [](const at::Tensor& x) { return Attend(x, 4); }}};
}

struct Pair {
  at::Tensor value, gradient;
};

Pair Differentiate(const Operation& operation, const at::Tensor& input, const at::Tensor& outer) {
  const at::AutoGradMode with_gradients(true);
  const at::Tensor x = input.detach().requires_grad_();
  const at::Tensor y = operation.apply(x);
  return {y.detach(), torch::autograd::grad({y}, {x}, {outer})[0]};
}

class LayerGradientsTest : public testing::TestWithParam<Operation> {
 protected:
  const at::Tensor x_ = Random({kRows, GetParam().width}, 1);
  const at::Tensor outer_ = Random(GetParam().apply(x_).sizes(), 5);
};

INSTANTIATE_TEST_SUITE_P(Operations, LayerGradientsTest, testing::ValuesIn(Operations()),
                         [](const auto& info) { return info.param.name; });

// The worst element of a - b against the larger of 1 and b's largest.
double Worst(const at::Tensor& a, const at::Tensor& b) {
  const double scale = std::max(1.0, b.to(at::kDouble).abs().max().item<double>());
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>() / scale;
}

TEST_P(LayerGradientsTest, PlainOperationsEqualDifferences) {
  const Pair found = Differentiate(GetParam(), x_, outer_);
  const at::Tensor direction = Random(x_.sizes(), 6);
  const auto loss = [&](double step) {
    return (GetParam().apply(x_ + step * direction) * outer_).sum().item<double>();
  };
  // h² times a third derivative of some tens, and 1e-16 of a loss of some tens over h.
  const double expected = (loss(1e-5) - loss(-1e-5)) / 2e-5;
  EXPECT_NEAR((found.gradient * direction).sum().item<double>(), expected,
              1e-7 * std::max(1.0, std::abs(expected)));
}

TEST_P(LayerGradientsTest, FusedEqualsPlainInDouble) {
  const at::Tensor x = x_.to(at::kFloat), outer = outer_.to(at::kFloat);
  const Pair fused = Differentiate(GetParam(), x, outer);
  const Pair plain = Differentiate(GetParam(), x.to(at::kDouble), outer.to(at::kDouble));
  ASSERT_EQ(fused.value.scalar_type(), at::kFloat);
  // Inputs, weights and results are rounded to 2^-24 each, and sums of 77 terms run in 32
  // parts: below 20 roundings.
  EXPECT_LT(Worst(fused.value, plain.value), 20 * 0x1p-24);
  EXPECT_LT(Worst(fused.gradient, plain.gradient), 20 * 0x1p-24);
}

TEST_P(LayerGradientsTest, Bf16IsNearFp32) {
  const at::Tensor x = x_.to(at::kBFloat16), outer = outer_.to(at::kBFloat16);
  const Pair narrow = Differentiate(GetParam(), x, outer);
  const Pair wide = Differentiate(GetParam(), x.to(at::kFloat), outer.to(at::kFloat));
  ASSERT_EQ(narrow.gradient.scalar_type(), at::kBFloat16);
  // The weight or table, a value between, and the result are rounded to 2^-9.
  EXPECT_LT(Worst(narrow.value, wide.value), 4 * 0x1p-9);
  EXPECT_LT(Worst(narrow.gradient, wide.gradient), 4 * 0x1p-9);
}

TEST_P(LayerGradientsTest, StridesChangeNothing) {
  const at::Tensor x = x_.to(at::kFloat), outer = outer_.to(at::kFloat);
  const Pair expected = Differentiate(GetParam(), x, outer);
  const auto sliced = [](const at::Tensor& y) {
    return at::cat({y + 1, y, y - 1}, 1).narrow(1, y.size(1), y.size(1));
  };
  const auto turned = [](const at::Tensor& y) { return y.t().contiguous().t(); };
  for (const Pair& found : {Differentiate(GetParam(), sliced(x), sliced(outer)),
                            Differentiate(GetParam(), turned(x), turned(outer))}) {
    EXPECT_TRUE(at::equal(found.value, expected.value));
    EXPECT_TRUE(at::equal(found.gradient, expected.gradient));
  }
}

TEST_P(LayerGradientsTest, InputsAreNotChanged) {
  const at::Tensor x = x_.to(at::kFloat), outer = outer_.to(at::kFloat);
  const at::Tensor x_before = x.clone(), outer_before = outer.clone();
  Differentiate(GetParam(), x, outer);
  EXPECT_TRUE(at::equal(x, x_before));
  EXPECT_TRUE(at::equal(outer, outer_before));
}

TEST(LayerGradientsWeightTest, WeightsOfNormsAreConstants) {
  const at::Tensor x = Random({2, 8}, 7).to(at::kFloat);
  EXPECT_ANY_THROW(RmsNormGraph(x, at::ones({8}).requires_grad_(), 1e-5));
}

}  // namespace
}  // namespace latentforge::model
