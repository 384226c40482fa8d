#include "worker/model/attention_gradient.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "tests/worker/model/reference.h"
#include "worker/model/attention_blocks.h"

namespace latentforge::model {
namespace {

struct Case {
  std::string name;
  AttentionShape shape;
};

at::Tensor Random(at::IntArrayRef shape, uint32_t seed, double scale = 1.0) {
  const at::Tensor result = at::empty(shape, at::kDouble);
  const std::vector<double> values = RandomValues(static_cast<size_t>(result.numel()), seed, scale);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<double>());
  return result;
}

struct Inputs {
  at::Tensor q, k, v, out_gradient;
};

Inputs Make(const AttentionShape& s, at::ScalarType dtype, double scale = 1.0) {
  return {Random({s.length, s.heads, s.dim}, 1, scale).to(dtype),
          Random({s.length, s.kv_heads, s.dim}, 2, scale).to(dtype),
          Random({s.length, s.kv_heads, s.dim}, 3).to(dtype),
          Random({s.length, s.heads, s.dim}, 4).to(dtype)};
}

// out, and the gradients by q, k and v.
std::vector<at::Tensor> Differentiate(const Inputs& x, const std::optional<int64_t>& window) {
  const AttentionResult result = AttentionForward(x.q, x.k, x.v, window);
  const AttentionGradients found = AttentionGradient(x.q, x.k, x.v, window, result, x.out_gradient);
  return {result.out, found.q, found.k, found.v};
}

// The same from a softmax over all pairs of positions, in double.
std::vector<at::Tensor> Expected(const Inputs& x, const AttentionShape& s) {
  const at::AutoGradMode with_gradients(true);
  std::vector<at::Tensor> inputs;
  for (const at::Tensor& input : {x.q, x.k, x.v}) {
    inputs.push_back(input.to(at::kDouble).clone().requires_grad_());
  }
  const at::Tensor position = at::arange(s.length);
  const at::Tensor distance = position.unsqueeze(1) - position.unsqueeze(0);
  const at::Tensor hidden = distance.lt(0).logical_or(distance.ge(s.window.value_or(s.length)));
  const auto spread = [&](const at::Tensor& y) {
    return y.repeat_interleave(s.heads / s.kv_heads, 1).transpose(0, 1);
  };
  const at::Tensor scores = inputs[0].transpose(0, 1).matmul(spread(inputs[1]).transpose(1, 2)) /
                            std::sqrt(static_cast<double>(s.dim));
  const at::Tensor weights =
      scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1);
  const at::Tensor out = weights.matmul(spread(inputs[2])).transpose(0, 1);
  std::vector<at::Tensor> all = {out.detach()};
  for (at::Tensor& gradient :
       torch::autograd::grad({out}, inputs, {x.out_gradient.to(at::kDouble)})) {
    all.push_back(std::move(gradient));
  }
  return all;
}

// |a - b| / |b|, as vectors; one that is 0, as with one key to see, counts as 1.
double Distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b).norm() / b.norm().clamp_min(1)).item<double>();
}

// The largest difference against the larger of 1 and b's largest element.
double Worst(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b).abs().max() / b.abs().max().clamp_min(1)).item<double>();
}

const std::vector<std::string> kNames = {"out", "q", "k", "v"};

class AttentionGradientTest : public testing::TestWithParam<Case> {
 protected:
  const AttentionShape& shape_ = GetParam().shape;
};

// Blocks hold 64 keys and 32 to 192 queries; depths are padded to 32.
INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionGradientTest,
    testing::Values(Case{"mha", {450, 3, 3, 64, {}}}, Case{"pairs", {250, 4, 2, 32, {}}},
                    Case{"gqa", {333, 9, 3, 64, {}}}, Case{"wide", {200, 12, 1, 80, {}}},
                    Case{"mqa", {131, 5, 1, 24, {}}}, Case{"odd", {65, 2, 1, 7, {}}},
                    Case{"whole_blocks", {192, 3, 1, 32, {}}}, Case{"one", {1, 2, 1, 16, {}}},
                    Case{"two", {2, 2, 2, 16, {}}}, Case{"window", {450, 6, 2, 32, 37}},
                    Case{"window_of_blocks", {450, 2, 2, 32, 128}},
                    Case{"window_beyond", {100, 4, 2, 32, 1000}},
                    Case{"window_almost", {100, 4, 2, 32, 99}},
                    Case{"window_of_one", {100, 4, 2, 32, 1}}),
    [](const auto& info) { return info.param.name; });

TEST_P(AttentionGradientTest, Fp32EqualsDouble) {
  const Inputs x = Make(shape_, at::kFloat);
  const auto found = Differentiate(x, shape_.window), expected = Expected(x, shape_);
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(found[i].scalar_type(), at::kFloat);
    // Scores of up to 5 are off by some roundings of 2^-24 of their terms, and so are the
    // probabilities; sums of up to 450 terms add about as much against the largest element.
    EXPECT_LT(Worst(found[i], expected[i]), 32 * 0x1p-24) << kNames[i];
  }
}

TEST_P(AttentionGradientTest, Bf16IsWithinItsRoundings) {
  const Inputs x = Make(shape_, at::kBFloat16);
  const auto found = Differentiate(x, shape_.window), expected = Expected(x, shape_);
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(found[i].scalar_type(), at::kBFloat16);
    // Four values are rounded to 2^-9 on the longest way: out, what the softmax gives, its
    // gradient, and the result.
    EXPECT_LT(Distance(found[i], expected[i]), 4 * 0x1p-9) << kNames[i];
  }
}

TEST_P(AttentionGradientTest, Bf16WithoutProductsOfPairs) {
  const Inputs x = Make(shape_, at::kBFloat16);
  at::globalContext().setUserEnabledMkldnn(false);  // as on a processor that has none
  const auto found = Differentiate(x, shape_.window);
  at::globalContext().setUserEnabledMkldnn(true);
  const auto expected = Expected(x, shape_);
  for (size_t i = 0; i < found.size(); ++i) {
    // Here out and the result are rounded, and nothing between.
    EXPECT_LT(Distance(found[i], expected[i]), 2 * 0x1p-9) << kNames[i];
  }
}

TEST_P(AttentionGradientTest, ThreadsChangeNoBit) {
  const int before = at::get_num_threads();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Inputs x = Make(shape_, dtype);
    at::set_num_threads(1);
    const auto expected = Differentiate(x, shape_.window);
    for (const int threads : {2, 9}) {
      at::set_num_threads(threads);
      const auto found = Differentiate(x, shape_.window);
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_TRUE(at::equal(found[i], expected[i])) << kNames[i] << " with " << threads;
      }
    }
  }
  at::set_num_threads(before);
}

TEST_P(AttentionGradientTest, StridesChangeNoBit) {
  const auto sliced = [](const at::Tensor& y) {
    return at::cat({y + 1, y, y - 1}, 2).narrow(2, y.size(2), y.size(2));
  };
  const auto turned = [](const at::Tensor& y) {
    return y.transpose(0, 1).contiguous().transpose(0, 1);
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Inputs x = Make(shape_, dtype);
    const auto expected = Differentiate(x, shape_.window);
    const auto found = Differentiate(
        {sliced(x.q), turned(x.k), sliced(x.v), turned(x.out_gradient)}, shape_.window);
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(at::equal(found[i], expected[i])) << kNames[i];
    }
  }
}

// Scores of 1e4, where exp overflows, and of 1e35, near the end of fp32.
TEST_P(AttentionGradientTest, LargeScoresStayFinite) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const double scale : {1e2, 1e17}) {
      const Inputs x = Make(shape_, dtype, scale);
      const auto found = Differentiate(x, shape_.window);
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_TRUE(found[i].isfinite().all().item().toBool()) << kNames[i] << " " << scale;
      }
      // The probabilities of a query sum to 1, whatever the scores: so do the shares that
      // the values get of its gradient. The rounding of 450 terms of 1.
      const auto total = [](const at::Tensor& y) { return y.to(at::kDouble).flatten(0, 1).sum(0); };
      const double epsilon = dtype == at::kFloat ? 0x1p-24 : 0x1p-9;
      const double terms = static_cast<double>(shape_.length * shape_.heads);
      const at::Tensor missing = total(found[3]) - total(x.out_gradient);
      EXPECT_LT(missing.abs().max().item<double>(), 16 * epsilon * std::sqrt(terms));
    }
  }
}

TEST(AttentionGradientNanTest, ReachesWhatSeesIt) {
  const AttentionShape shape{300, 2, 1, 32, 20};
  const Inputs x = Make(shape, at::kFloat);
  x.k[100].fill_(std::numeric_limits<float>::quiet_NaN());
  const auto found = Differentiate(x, shape.window);
  const at::Tensor position = at::arange(300);
  // Queries 100 to 119 see the key.
  const at::Tensor seeing = position.ge(100).logical_and(position.lt(120));
  const auto missing = [](const at::Tensor& y) { return y.isnan().flatten(1).all(1); };
  EXPECT_TRUE(at::equal(missing(found[0]), seeing));
  EXPECT_EQ(missing(found[1]).narrow(0, 100, 20).sum().item<int64_t>(), 20);
  EXPECT_TRUE(missing(found[2])[100].item<bool>());
  EXPECT_TRUE(missing(found[3])[100].item<bool>());
  // Products of blocks also multiply NaN by zeros: of queries 0 to 191 with keys 64 to 127.
  for (const at::Tensor& y : found) {
    EXPECT_FALSE(y.narrow(0, 192, 108).isnan().any().item<bool>());
  }
  EXPECT_FALSE(found[2].narrow(0, 0, 64).isnan().any().item<bool>());
  EXPECT_FALSE(found[3].narrow(0, 0, 64).isnan().any().item<bool>());
}

TEST(AttentionGradientErrorTest, WhatDoesNotFitIsAnError) {
  const Inputs x = Make({8, 4, 2, 16, {}}, at::kFloat);
  const AttentionResult result = AttentionForward(x.q, x.k, x.v, std::nullopt);
  EXPECT_ANY_THROW(AttentionForward(x.q.to(at::kDouble), x.k, x.v, std::nullopt));
  EXPECT_ANY_THROW(AttentionForward(x.q.narrow(1, 0, 3), x.k, x.v, std::nullopt));
  EXPECT_ANY_THROW(AttentionForward(x.q, x.k, x.v, 0));
  EXPECT_ANY_THROW(
      AttentionGradient(x.q, x.k, x.v, std::nullopt, result, x.out_gradient.to(at::kBFloat16)));
  EXPECT_ANY_THROW(
      AttentionGradient(x.q, x.k, x.v, std::nullopt, result, x.out_gradient.narrow(0, 0, 7)));
}

TEST(AttentionBlocksTest, PartsAreNeighboursOfEqualWork) {
  for (const int64_t length : {1, 64, 700, 5000}) {
    for (const int64_t window : {int64_t{100}, length}) {
      const AttentionBlocks blocks = AttentionBlocks::Make(length, window, 3, 64);
      int64_t next = 0, total = 0, largest = 0, most = 0;
      for (const Range& part : blocks.Parts(4)) {
        EXPECT_EQ(part.begin, next);
        EXPECT_LT(part.begin, part.end);
        next = part.end;
        int64_t work = 0;
        for (int64_t i = part.begin; i < part.end; ++i) {
          const Range keys = blocks.KeysOf(i);
          work += keys.end - keys.begin;
          largest = std::max(largest, keys.end - keys.begin);
        }
        total += work;
        most = std::max(most, work);
      }
      EXPECT_EQ(next, blocks.query_blocks());
      EXPECT_LE(blocks.Parts(4).size(), 4u);
      EXPECT_LE(most, total / 4 + largest);
    }
  }
}

}  // namespace
}  // namespace latentforge::model
