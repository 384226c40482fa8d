#include "worker/finetune/distiller.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "tests/worker/finetune/tiny_student.h"

namespace latentforge::finetune {
namespace {

constexpr int64_t kLength = 9;
constexpr int64_t kSequences = 3;

TokenBatch Text() {
  TokenBatch batch{.length = kLength};
  for (int i = 0; i < kSequences * kLength; ++i) batch.ids.push_back((i * 7 + i / 5) % 64);
  return batch;
}

at::Tensor LogSoftmax(const model::LayerGraph& graph, const model::WeightLoader& loader,
                      const std::vector<TrainableWeights>& factors, bool student) {
  const checkpoint::ModelConfig& config = loader.config();
  at::Tensor hidden = loader.Embed(Text().ids, kLength).value().view({kSequences, kLength, -1});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    model::LayerWeights weights = loader.Layer(layer).value();
    const TrainableWeights& latents = factors[static_cast<size_t>(layer)];
    if (student && latents.k_up.defined()) {
      weights.k.down = latents.KeyDown();
      weights.k.up = latents.k_up;
    }
    if (student && latents.v_up.defined()) {
      weights.v.down = latents.ValueDown();
      weights.v.up = latents.v_up;
    }
    if (student && latents.q.defined()) weights.q.weight = latents.q;
    if (student && latents.o.defined()) weights.o.weight = latents.o;
    hidden = graph.Forward(weights, hidden).output;
  }
  const at::Tensor normed = graph.ApplyNorm(hidden, loader.FinalNorm().value());
  return normed.matmul(loader.LmHeadRows(0, config.vocab_size).value().t()).log_softmax(-1);
}

// Family, a joint latent, and whether queries and outputs are trained too.
class DistillerTest : public testing::TestWithParam<std::tuple<checkpoint::Family, bool, bool>> {};

// One graph through the whole model, by autograd alone.
TEST_P(DistillerTest, GivesTheGradientsOfTheWholeModel) {
  const auto [family, joint, attention] = GetParam();
  const auto model = TinyModel(family, "distiller");
  ASSERT_NE(model, nullptr);
  std::vector<TrainableWeights> factors = TinyFactors(*model, joint, 5, attention);
  auto distiller = Distiller::Create(*model, {.dtype = at::kFloat, .longest = kLength});
  ASSERT_TRUE(distiller.ok()) << distiller.status();
  std::vector<TrainableWeights> gradients;
  const auto found = distiller->Differentiate(Text(), factors, gradients);
  ASSERT_TRUE(found.ok()) << found.status();

  const model::WeightLoader loader(*model, at::kCPU, at::kFloat);
  const auto graph =
      model::LayerGraph::Create(model->config(), at::kCPU, at::kFloat, kLength).value();
  const at::AutoGradMode with_gradients(true);
  std::vector<at::Tensor> leaves;
  for (TrainableWeights& layer : factors) {
    for (const auto& [name, tensor] : layer.Named()) {
      if (tensor->defined()) leaves.push_back(tensor->requires_grad_());
    }
  }
  const at::Tensor log_p = LogSoftmax(graph, loader, factors, /*student=*/false).detach();
  const at::Tensor log_q = LogSoftmax(graph, loader, factors, /*student=*/true);
  const at::Tensor loss = (log_p.exp() * (log_p - log_q)).sum() / double(kSequences * kLength);
  const auto expected = torch::autograd::grad({loss}, leaves);

  EXPECT_NEAR(found->divergence, loss.item<double>(), 1e-5 * (1 + loss.item<double>()));
  size_t next = 0;
  for (size_t l = 0; l < factors.size(); ++l) {
    const auto named = gradients[l].Named();
    const auto original = factors[l].Named();
    for (size_t i = 0; i < named.size(); ++i) {
      ASSERT_EQ(named[i].second->defined(), original[i].second->defined()) << named[i].first;
      if (!named[i].second->defined()) continue;
      const at::Tensor& wanted = expected[next++];
      // fp32 through three layers in another order: a few hundred roundings of 6e-8.
      const double error = (*named[i].second - wanted).abs().max().item<double>();
      EXPECT_LT(error, 1e-4 * wanted.abs().max().item<double>())
          << "layer " << l << " " << named[i].first;
    }
  }
}

TEST_P(DistillerTest, MeasuresWhatItDifferentiates) {
  const auto [family, joint, attention] = GetParam();
  const auto model = TinyModel(family, "distiller");
  ASSERT_NE(model, nullptr);
  const std::vector<TrainableWeights> factors = TinyFactors(*model, joint, 5, attention);
  auto distiller = Distiller::Create(*model, {.dtype = at::kFloat, .longest = kLength}).value();
  std::vector<TrainableWeights> gradients;
  const Distance loss = distiller.Differentiate(Text(), factors, gradients).value();
  const at::Tensor teacher = distiller.TeacherStates(Text()).value();
  const Distance measured = distiller.Measure(Text(), teacher, factors).value();
  // The same sums; the last norm is computed by two functions.
  EXPECT_NEAR(measured.divergence, loss.divergence, 1e-5);
  EXPECT_NEAR(measured.nll, loss.nll, 1e-5);
  EXPECT_GT(measured.divergence, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(
    Families, DistillerTest,
    testing::Combine(testing::Values(checkpoint::Family::kLlama, checkpoint::Family::kQwen2,
                                     checkpoint::Family::kQwen3, checkpoint::Family::kOpt),
                     testing::Bool(), testing::Bool()));

TEST(DistillerTest, TheLossOfAttentionIsTheMeanOverLayers) {
  const auto model = TinyModel(checkpoint::Family::kQwen3, "distiller");
  ASSERT_NE(model, nullptr);
  const std::vector<TrainableWeights> factors = TinyFactors(*model, /*joint=*/true, 5, true);
  const auto differentiate = [&](double weight, std::vector<TrainableWeights>& gradients) {
    auto distiller = Distiller::Create(
        *model, {.dtype = at::kFloat, .longest = kLength, .attention_loss = weight});
    return distiller->Differentiate(Text(), factors, gradients).value();
  };
  std::vector<TrainableWeights> none, once, twice;
  const Distance without = differentiate(0, none);
  const Distance with = differentiate(1, once);
  EXPECT_EQ(differentiate(2, twice).attention, with.attention);
  EXPECT_EQ(without.attention, 0);
  EXPECT_EQ(without.divergence, with.divergence);

  const model::WeightLoader loader(*model, at::kCPU, at::kFloat);
  const auto graph =
      model::LayerGraph::Create(model->config(), at::kCPU, at::kFloat, kLength).value();
  at::Tensor teacher = loader.Embed(Text().ids, kLength).value().view({kSequences, kLength, -1});
  at::Tensor student = teacher;
  double expected = 0;
  for (int64_t layer = 0; layer < model->config().num_layers; ++layer) {
    const model::LayerWeights weights = loader.Layer(layer).value();
    const model::LayerWeights trained = WithTrained(weights, factors[static_cast<size_t>(layer)]);
    const at::Tensor wanted = graph.AttentionOutput(weights, teacher);
    const at::Tensor given = graph.AttentionOutput(trained, student);
    expected += ((given - wanted).square().sum() / wanted.square().sum()).item<double>();
    teacher = graph.Forward(weights, teacher).output;
    student = graph.Forward(trained, student).output;
  }
  expected /= double(model->config().num_layers);
  EXPECT_NEAR(with.attention, expected, 1e-4 * expected);
  // It is added: gradients are linear in its weight.
  for (size_t l = 0; l < none.size(); ++l) {
    const auto a = none[l].Named(), b = once[l].Named(), c = twice[l].Named();
    for (size_t i = 0; i < a.size(); ++i) {
      if (!a[i].second->defined()) continue;
      const at::Tensor added = *b[i].second - *a[i].second;
      const at::Tensor again = *c[i].second - *b[i].second;
      EXPECT_GT(added.abs().max().item<double>(), 0) << a[i].first;
      // Roundings of both gradients, as in GivesTheGradientsOfTheWholeModel.
      const double scale = c[i].second->abs().max().item<double>();
      EXPECT_LT((added - again).abs().max().item<double>(), 2e-4 * scale) << a[i].first;
    }
  }
}

TEST(DistillerTest, AnIdOutsideTheVocabularyIsAnError) {
  const auto model = TinyModel(checkpoint::Family::kLlama, "distiller");
  ASSERT_NE(model, nullptr);
  auto distiller = Distiller::Create(*model, {.dtype = at::kFloat, .longest = kLength}).value();
  TokenBatch batch = Text();
  batch.ids[4] = 1000;
  EXPECT_EQ(distiller.TeacherStates(batch).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace latentforge::finetune
