#include "worker/model/layer_graph.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/checkpoint/fixture.h"
#include "worker/model/decoder.h"

namespace latentforge::model {
namespace {

using checkpoint::Checkpoint;
using checkpoint::Family;
using checkpoint::TinyOptions;

struct Case {
  std::string name;
  TinyOptions options;
};

// Layer 1 has these ranks, with biases everywhere and a block identity.
TinyOptions LowRank(Family family, const checkpoint::LinearRanks& ranks) {
  TinyOptions options{.family = family, .scale = 0.5};
  options.low_rank = checkpoint::LowRankConfig{.bias = true, .ranks = {{}, ranks}};
  return options;
}

Checkpoint Make(const Case& test) {
  const std::filesystem::path dir = checkpoint::NewTestDirectory("graph_" + test.name) / "model";
  EXPECT_TRUE(checkpoint::WriteTinyCheckpoint(dir, test.options).ok());
  auto source = Checkpoint::Open(dir);
  EXPECT_TRUE(source.ok()) << source.status();
  return *std::move(source);
}

at::Tensor Input(int64_t sequences, int64_t length, at::ScalarType dtype) {
  return at::arange(sequences * length * 32, at::kDouble)
      .mul(1.7)
      .sin()
      .view({sequences, length, 32})
      .to(dtype);
}

class LayerGraphTest : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(
    Families, LayerGraphTest,
    testing::Values(
        Case{"llama", {.scale = 0.5}}, Case{"qwen2", {.family = Family::kQwen2, .scale = 0.5}},
        Case{"qwen3", {.family = Family::kQwen3, .scale = 0.5}},
        Case{"window",
             {.family = Family::kMistral,
              .scale = 0.5,
              .config_overrides = {{"sliding_window", 5}}}},
        Case{"separate", {.scale = 0.5, .ranks = {{.k = 5, .v = 7}, {.k = 5, .v = 7}}}},
        Case{"joint", {.scale = 0.5, .ranks = {{.joint = 9}, {.joint = 9}}, .joint = true}},
        Case{"low_rank",
             LowRank(Family::kQwen3,
                     {.q = 9, .k = 5, .v = 7, .o = 11, .gate = 13, .up = 12, .down = 10})},
        Case{"mixed", LowRank(Family::kQwen2, {.k = 5, .o = 11, .up = 12})},
        Case{"opt", {.family = Family::kOpt, .scale = 0.5}},
        Case{"opt_post_norm",
             {.family = Family::kOpt,
              .scale = 0.5,
              .config_overrides = {{"do_layer_norm_before", false}}}},
        Case{"opt_joint",
             {.family = Family::kOpt,
              .scale = 0.5,
              .ranks = {{.joint = 9}, {.joint = 9}},
              .joint = true}},
        Case{"opt_low_rank",
             LowRank(Family::kOpt, {.q = 9, .k = 5, .v = 7, .o = 11, .up = 12, .down = 10})}),
    [](const auto& info) { return info.param.name; });

TEST_P(LayerGraphTest, EqualsTheDecoder) {
  const Checkpoint source = Make(GetParam());
  const LayerWeights weights = WeightLoader(source, at::kCPU, at::kFloat).Layer(1).value();
  const LayerGraph graph = LayerGraph::Create(source.config(), at::kCPU, at::kFloat, 24).value();
  Decoder decoder = Decoder::Create(source.config(), at::kCPU, at::kFloat, 24).value();
  const at::Tensor expected = Input(3, 24, at::kFloat).clone();
  at::Tensor normed;
  ASSERT_TRUE(decoder
                  .Forward(weights, expected,
                           [&](int64_t, LayerPoint point, const at::Tensor& x) {
                             if (point == LayerPoint::kAttentionInput) normed = x.clone();
                             return absl::OkStatus();
                           })
                  .ok());
  const LayerGraph::Result result = graph.Forward(weights, Input(3, 24, at::kFloat));
  // The same formulas in fp32 in another order: some tens of roundings of 6e-8.
  const double scale = expected.abs().max().item<double>();
  EXPECT_LT((result.output - expected).abs().max().item<double>(), 1e-5 * scale);
  EXPECT_LT((result.normed - normed).abs().max().item<double>(), 1e-5);
}

TEST_P(LayerGraphTest, GradientsEqualDifferences) {
  const Checkpoint source = Make(GetParam());
  const LayerWeights weights = WeightLoader(source, at::kCPU, at::kDouble).Layer(1).value();
  const LayerGraph graph = LayerGraph::Create(source.config(), at::kCPU, at::kDouble, 7).value();
  const at::Tensor input = Input(2, 7, at::kDouble);
  const at::Tensor direction = Input(2, 7, at::kDouble).mul(3).cos();
  const at::Tensor weight = Input(2, 7, at::kDouble).mul(5).cos();
  const auto loss = [&](const at::Tensor& x) {
    return (graph.Forward(weights, x).output * weight).sum().item<double>();
  };
  at::Tensor gradient;
  {
    const at::AutoGradMode with_gradients(true);
    const at::Tensor x = input.clone().requires_grad_();
    gradient = torch::autograd::grad({graph.Forward(weights, x).output}, {x}, {weight})[0];
  }
  // Central differences: the error is h² times a third derivative, and 1e-16 of the
  // loss over h.
  const double h = 1e-5;
  const double expected = (loss(input + h * direction) - loss(input - h * direction)) / (2 * h);
  const double found = (gradient * direction).sum().item<double>();
  EXPECT_NEAR(found, expected, 1e-6 * std::max(1.0, std::abs(expected)));
}

// More rows than one block of the MLP; float takes the fused operations.
TEST_P(LayerGraphTest, HalvesGiveTheGradientsOfTheWholeLayer) {
  const Checkpoint source = Make(GetParam());
  constexpr int64_t kSequences = 23, kLength = 24;
  const at::Tensor input = Input(kSequences, kLength, at::kDouble);
  const at::Tensor outer = Input(kSequences, kLength, at::kDouble).mul(5).cos();
  const auto make = [&](at::ScalarType dtype) {
    return LayerGraph::Create(source.config(), at::kCPU, dtype, kLength).value();
  };
  const auto load = [&](at::ScalarType dtype) {
    return WeightLoader(source, at::kCPU, dtype).Layer(1).value();
  };
  std::vector<at::Tensor> expected;
  {
    const at::AutoGradMode with_gradients(true);
    const at::Tensor x = input.clone().requires_grad_();
    const LayerGraph::Result result = make(at::kDouble).Forward(load(at::kDouble), x);
    expected = torch::autograd::grad(
        {result.output}, {x, result.query, result.key, result.value, result.attended}, {outer});
  }
  const LayerGraph::Gradients found =
      make(at::kFloat).Differentiate(load(at::kFloat), input.to(at::kFloat), outer.to(at::kFloat));
  const auto worst = [](const at::Tensor& a, const at::Tensor& b) {
    return ((a - b).abs().max() / b.abs().max()).item<double>();
  };
  // A few hundred roundings of 6e-8, and tables of sines in fp32 on both sides.
  EXPECT_LT(worst(found.input, expected[0]), 1e-5);
  EXPECT_LT(worst(found.query, expected[1]), 1e-5);
  EXPECT_LT(worst(found.key, expected[2]), 1e-5);
  EXPECT_LT(worst(found.value, expected[3]), 1e-5);
  // What attention gave passes through the output projection alone.
  EXPECT_LT(worst(ProjectBack(found.projected, load(at::kFloat).o), expected[4]), 1e-5);
  const LayerGraph::Gradients again =
      make(at::kFloat).Differentiate(load(at::kFloat), input.to(at::kFloat), outer.to(at::kFloat));
  EXPECT_TRUE(at::equal(found.input, again.input));
  EXPECT_TRUE(at::equal(found.key, again.key));
}

TEST_P(LayerGraphTest, ATargetOfAttentionAddsItsLoss) {
  const Checkpoint source = Make(GetParam());
  const LayerWeights weights = WeightLoader(source, at::kCPU, at::kDouble).Layer(1).value();
  const LayerGraph graph = LayerGraph::Create(source.config(), at::kCPU, at::kDouble, 7).value();
  const at::Tensor input = Input(2, 7, at::kDouble);
  const at::Tensor outer = input.mul(5).cos();
  const AttentionTarget target{.output = input.mul(3).sin().reshape({14, 32}), .weight = 0.7};
  const LayerGraph::Gradients found = graph.Differentiate(weights, input, outer, target);

  const at::AutoGradMode with_gradients(true);
  const at::Tensor x = input.clone().requires_grad_();
  const LayerGraph::Result result = graph.Forward(weights, x);
  const at::Tensor given = Project(result.attended, weights.o);
  const at::Tensor loss = (given - target.output).square().sum() / target.output.square().sum();
  const auto expected =
      torch::autograd::grad({(result.output * outer).sum() + target.weight * loss},
                            {x, result.query, result.key, result.value, given});
  // The target is compared in fp32: roundings of 6e-8 of gradients of order 1.
  const auto worst = [](const at::Tensor& a, const at::Tensor& b) {
    return ((a - b).abs().max() / b.abs().max()).item<double>();
  };
  EXPECT_NEAR(found.attention_loss, loss.item<double>(), 1e-5 * loss.item<double>());
  EXPECT_LT(worst(found.input, expected[0]), 1e-5);
  EXPECT_LT(worst(found.query, expected[1]), 1e-5);
  EXPECT_LT(worst(found.key, expected[2]), 1e-5);
  EXPECT_LT(worst(found.value, expected[3]), 1e-5);
  EXPECT_LT(worst(graph.AttentionOutput(weights, input), given.detach()), 1e-12);
}

// Oracle 7: with factors of full rank the layer is the dense one, to fp64 rounding.
TEST(LayerGraphLowRankTest, FullRankFactorsAreTheDenseLayer) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3}) {
    TinyOptions options{.family = family, .scale = 0.5};
    if (family == Family::kLlama) {
      options.config_overrides = {{"attention_bias", true}, {"mlp_bias", true}};
    }
    const Checkpoint source = Make({"full", options});
    const LayerWeights dense = WeightLoader(source, at::kCPU, at::kDouble).Layer(1).value();
    LayerWeights factored = dense;
    SplitGateUp(factored);
    for (Projection* const p : {&factored.q, &factored.k, &factored.v, &factored.o, &factored.gate,
                                &factored.up, &factored.mlp_down}) {
      const auto [q, r] = at::linalg_qr(p->weight);
      EXPECT_EQ(q.size(1), std::min(p->weight.size(0), p->weight.size(1)));
      p->Replace(r, q);
    }
    const LayerGraph graph = LayerGraph::Create(source.config(), at::kCPU, at::kDouble, 24).value();
    const at::Tensor input = Input(3, 24, at::kDouble);
    const at::Tensor expected = graph.Forward(dense, input).output;
    const at::Tensor found = graph.Forward(factored, input).output;
    // A few hundred roundings of 1e-16 of the largest state.
    EXPECT_LT((found - expected).abs().max().item<double>(),
              1e-12 * expected.abs().max().item<double>());
  }
}

TEST(LayerGraphKeyValueTest, GradientsByKeyAndValueAreThoseOfTheBiases) {
  // y = W x + b: the sum over rows of dL/dy is dL/db.
  const Checkpoint source = Make({"bias", {.family = Family::kQwen2, .scale = 0.5}});
  LayerWeights weights = WeightLoader(source, at::kCPU, at::kDouble).Layer(0).value();
  const LayerGraph graph = LayerGraph::Create(source.config(), at::kCPU, at::kDouble, 9).value();
  const at::AutoGradMode with_gradients(true);
  weights.k.bias.requires_grad_();
  weights.v.bias.requires_grad_();
  const LayerGraph::Result result = graph.Forward(weights, Input(2, 9, at::kDouble));
  const auto gradients = torch::autograd::grad(
      {result.output.square().sum()}, {result.key, result.value, weights.k.bias, weights.v.bias});
  EXPECT_TRUE(gradients[0].sum(0).allclose(gradients[2], 1e-9, 1e-9));
  EXPECT_TRUE(gradients[1].sum(0).allclose(gradients[3], 1e-9, 1e-9));
  // A constant added to every key changes no softmax only without RoPE.
  EXPECT_GT(gradients[2].abs().max().item<double>(), 1e-6);
}

}  // namespace
}  // namespace latentforge::model
