// OPT through our decoder against its equations, written out in double from the checkpoint's own
// tensor names.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "checkpoint/safetensors.h"
#include "tests/checkpoint/fixture.h"
#include "worker/model/decoder.h"
#include "worker/model/layer_graph.h"

namespace latentforge::model {
namespace {

using checkpoint::Checkpoint;
using checkpoint::Family;

constexpr int64_t kHidden = 32, kHeads = 4, kLength = 11, kSequences = 3;

// One model, and its tensors in double by their names in the file.
class OptModel {
 public:
  explicit OptModel(const Json& changes)
      : dir_(checkpoint::NewTestDirectory("opt_model") / "model") {
    EXPECT_TRUE(checkpoint::WriteTinyCheckpoint(
                    dir_, {.family = Family::kOpt, .scale = 0.5, .config_overrides = changes})
                    .ok());
    source_ = std::make_unique<Checkpoint>(Checkpoint::Open(dir_).value());
    file_ = std::make_unique<checkpoint::SafetensorsFile>(
        checkpoint::SafetensorsFile::Open(dir_ / "model.safetensors").value());
  }

  const Checkpoint& source() const { return *source_; }
  bool Has(const std::string& name) const { return file_->FindEntry(name) != nullptr; }

  at::Tensor operator[](const std::string& name) const {
    const checkpoint::TensorView view = file_->Find(name).value();
    const at::IntArrayRef shape(view.shape().data(), view.shape().size());
    const at::Tensor flat = at::empty({view.entry->num_elements()}, at::kFloat);
    std::memcpy(flat.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    return flat.view(shape).to(at::kDouble);
  }

  at::Tensor Linear(const at::Tensor& x, const std::string& module) const {
    const at::Tensor y = x.matmul((*this)[module + ".weight"].t());
    return Has(module + ".bias") ? y + (*this)[module + ".bias"] : y;
  }

  at::Tensor LayerNorm(const at::Tensor& x, const std::string& module) const {
    const at::Tensor centred = x - x.mean(-1, true);
    const at::Tensor variance = centred.square().mean(-1, true);
    return centred / (variance + 1e-5).sqrt() * (*this)[module + ".weight"] +
           (*this)[module + ".bias"];
  }

 private:
  std::filesystem::path dir_;
  std::unique_ptr<Checkpoint> source_;
  std::unique_ptr<checkpoint::SafetensorsFile> file_;
};

// Causal attention of one sequence [T, D], head by head and query by query.
at::Tensor SlowAttention(const OptModel& model, const at::Tensor& x, const std::string& module) {
  const at::Tensor q = model.Linear(x, module + ".q_proj");
  const at::Tensor k = model.Linear(x, module + ".k_proj");
  const at::Tensor v = model.Linear(x, module + ".v_proj");
  const at::Tensor mixed = at::zeros_like(q);
  const int64_t width = kHidden / kHeads;
  for (int64_t head = 0; head < kHeads; ++head) {
    for (int64_t t = 0; t < x.size(0); ++t) {
      const auto part = [&](const at::Tensor& y) {
        return y.narrow(1, head * width, width).narrow(0, 0, t + 1);
      };
      const at::Tensor scores = part(k).mv(part(q)[t]) / std::sqrt(double(width));
      mixed[t].narrow(0, head * width, width).copy_(scores.softmax(0).unsqueeze(0).mm(part(v))[0]);
    }
  }
  return model.Linear(mixed, module + ".out_proj");
}

at::Tensor SlowLayer(const OptModel& model, at::Tensor x, int64_t layer, bool before) {
  const std::string module = absl::StrCat("model.decoder.layers.", layer, ".");
  const auto norm = [&](const at::Tensor& y, const char* name) {
    return model.LayerNorm(y, module + name);
  };
  x = x + SlowAttention(model, before ? norm(x, "self_attn_layer_norm") : x, module + "self_attn");
  if (!before) x = norm(x, "self_attn_layer_norm");
  const at::Tensor input = before ? norm(x, "final_layer_norm") : x;
  const at::Tensor inner = model.Linear(input, module + "fc1").clamp_min(0);
  x = x + model.Linear(inner, module + "fc2");
  return before ? x : norm(x, "final_layer_norm");
}

// Logits of one sequence [T, vocabulary].
at::Tensor SlowLogits(const OptModel& model, absl::Span<const int32_t> ids) {
  const checkpoint::ModelConfig& config = model.source().config();
  at::Tensor x = at::empty({std::ssize(ids), config.embedding_size}, at::kDouble);
  for (int64_t t = 0; t < x.size(0); ++t) {
    x[t].copy_(model["model.decoder.embed_tokens.weight"][ids[size_t(t)]]);
  }
  if (model.Has("model.decoder.project_in.weight")) x = model.Linear(x, "model.decoder.project_in");
  for (int64_t t = 0; t < x.size(0); ++t) {
    x[t].add_(model["model.decoder.embed_positions.weight"][t + 2]);
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    x = SlowLayer(model, x, layer, config.norm_before);
  }
  if (config.norm_before) x = model.LayerNorm(x, "model.decoder.final_layer_norm");
  if (model.Has("model.decoder.project_out.weight")) {
    x = model.Linear(x, "model.decoder.project_out");
  }
  return x.mm(
      model[config.tie_word_embeddings ? "model.decoder.embed_tokens.weight" : "lm_head.weight"]
          .t());
}

std::vector<int32_t> Ids(int64_t count) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(int32_t((i * 29 + i / 7) % 64));
  return ids;
}

double Worst(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

class OptModelTest : public testing::TestWithParam<Json> {};

INSTANTIATE_TEST_SUITE_P(Variants, OptModelTest,
                         testing::Values(Json{{"tie_word_embeddings", true}},
                                         Json{{"enable_bias", false}},
                                         Json{{"do_layer_norm_before", false}},
                                         // As OPT-350m has it.
                                         Json{{"do_layer_norm_before", false},
                                              {"word_embed_proj_dim", 20},
                                              {"tie_word_embeddings", true}},
                                         Json{{"word_embed_proj_dim", 40}}));

TEST_P(OptModelTest, LogitsAreThoseOfTheEquations) {
  const OptModel model(GetParam());
  const checkpoint::ModelConfig& config = model.source().config();
  const WeightLoader loader(model.source(), at::kCPU, at::kFloat);
  const std::vector<int32_t> ids = Ids(kSequences * kLength);
  const at::Tensor rows = loader.Embed(ids, kLength).value();
  const at::Tensor hidden = rows.view({kSequences, kLength, kHidden});
  Decoder decoder = Decoder::Create(config, at::kCPU, at::kFloat, kLength).value();
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    ASSERT_TRUE(decoder.Forward(loader.Layer(layer).value(), hidden).ok());
  }
  const at::Tensor normed = decoder.FinalNorm(hidden, loader.FinalNorm().value()).value();
  const at::Tensor logits = normed.matmul(loader.LmHeadRows(0, 64)->t());
  for (int64_t i = 0; i < kSequences; ++i) {
    const auto sequence = absl::MakeConstSpan(ids).subspan(size_t(i * kLength), size_t(kLength));
    // Two layers of fp32 against fp64: some tens of roundings of 6e-8.
    EXPECT_LT(Worst(logits[i].to(at::kDouble), SlowLogits(model, sequence)), 1e-5) << i;
  }
}

// Each point from the one before it, and the layer's output from the last.
TEST_P(OptModelTest, ObserversSeeWhatTheMapsAreFed) {
  const OptModel model(GetParam());
  const bool before = model.source().config().norm_before;
  const WeightLoader loader(model.source(), at::kCPU, at::kFloat);
  Decoder decoder = Decoder::Create(model.source().config(), at::kCPU, at::kFloat, kLength).value();
  const at::Tensor input = loader.Embed(Ids(kLength), kLength).value().to(at::kDouble);
  const at::Tensor hidden = input.to(at::kFloat).unsqueeze(0);
  std::map<LayerPoint, at::Tensor> seen;
  ASSERT_TRUE(decoder
                  .Forward(loader.Layer(1).value(), hidden,
                           [&](int64_t, LayerPoint point, const at::Tensor& x) {
                             seen[point] = x.to(at::kDouble, false, /*copy=*/true);
                             return absl::OkStatus();
                           })
                  .ok());
  const std::string layer = "model.decoder.layers.1.";
  const auto norm = [&](const at::Tensor& x, const char* name) {
    return model.LayerNorm(x, layer + name);
  };
  EXPECT_LT(Worst(seen[LayerPoint::kAttentionInput],
                  before ? norm(input, "self_attn_layer_norm") : input),
            1e-5);
  const at::Tensor sum =
      input + model.Linear(seen[LayerPoint::kAttended], layer + "self_attn.out_proj");
  const at::Tensor residual = before ? sum : norm(sum, "self_attn_layer_norm");
  EXPECT_LT(Worst(seen[LayerPoint::kMlpInput], before ? norm(sum, "final_layer_norm") : residual),
            1e-5);
  EXPECT_LT(Worst(seen[LayerPoint::kActivated],
                  model.Linear(seen[LayerPoint::kMlpInput], layer + "fc1").clamp_min(0)),
            1e-5);
  EXPECT_LT(Worst(seen[LayerPoint::kMlpOutput],
                  model.Linear(seen[LayerPoint::kActivated], layer + "fc2")),
            1e-5);
  const at::Tensor output = residual + seen[LayerPoint::kMlpOutput];
  EXPECT_LT(Worst(hidden[0].to(at::kDouble), before ? output : norm(output, "final_layer_norm")),
            1e-5);
}

// What Differentiate gives for the MLP is the gradient of the written-out layer.
TEST_P(OptModelTest, GradientsByTheMlpAreThoseOfTheEquations) {
  const OptModel model(GetParam());
  const checkpoint::ModelConfig& config = model.source().config();
  const LayerWeights weights = WeightLoader(model.source(), at::kCPU, at::kDouble).Layer(1).value();
  const LayerGraph graph = LayerGraph::Create(config, at::kCPU, at::kDouble, kLength).value();
  const at::Tensor hidden =
      at::arange(kLength * kHidden, at::kDouble).mul(1.7).sin().view({1, kLength, kHidden});
  const at::Tensor outer = hidden.mul(5).cos();
  at::Tensor by_inner;
  const LayerGraph::Gradients found = graph.Differentiate(
      weights, hidden, outer, {}, [&](const at::Tensor& gradient) { by_inner = gradient.clone(); });

  const at::AutoGradMode with_gradients(true);
  const std::string layer = "model.decoder.layers.1.";
  const at::Tensor after = (hidden[0] + Project(found.attended, weights.o)).detach();
  const bool before = config.norm_before;
  const at::Tensor residual =
      before ? after : model.LayerNorm(after, layer + "self_attn_layer_norm");
  const at::Tensor input = before ? model.LayerNorm(after, layer + "final_layer_norm") : residual;
  const at::Tensor inner = model.Linear(input, layer + "fc1").requires_grad_();
  const at::Tensor given = model.Linear(inner.relu(), layer + "fc2");
  const at::Tensor sum = residual + given;
  const at::Tensor output = before ? sum : model.LayerNorm(sum, layer + "final_layer_norm");
  const auto expected = torch::autograd::grad({output}, {inner, given}, {outer[0]});
  // fp64 on both sides.
  EXPECT_LT(Worst(by_inner, expected[0]), 1e-10);
  EXPECT_LT(Worst(found.mlp_output, expected[1]), 1e-10);
}

TEST(OptEmbeddingTest, PositionsBeginAnewWithEachSequenceAndEndWithTheContext) {
  const OptModel model(Json{{"max_position_embeddings", 16}});
  const WeightLoader loader(model.source(), at::kCPU, at::kDouble);
  const std::vector<int32_t> ids(16, 5);
  const at::Tensor rows = loader.Embed(ids, 8).value();
  const at::Tensor token = model["model.decoder.embed_tokens.weight"][5];
  const at::Tensor positions = model["model.decoder.embed_positions.weight"];
  for (int64_t t = 0; t < 16; ++t) EXPECT_TRUE(at::equal(rows[t], token + positions[t % 8 + 2]));
  EXPECT_TRUE(loader.Embed(ids, 16).ok());
  for (const int64_t length : {0, 3, 32}) {
    EXPECT_TRUE(absl::IsInvalidArgument(loader.Embed(ids, length).status())) << length;
  }
  const absl::Status status = loader.Embed(std::vector<int32_t>(17, 5), 17).status();
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("17 tokens are longer than"));
}

// Oracle 10: without RoPE a constant added to every key changes no softmax.
TEST(OptAttentionTest, TheKeysBiasDoesNothing) {
  const OptModel model(Json::object());
  LayerWeights weights = WeightLoader(model.source(), at::kCPU, at::kDouble).Layer(0).value();
  const LayerGraph graph =
      LayerGraph::Create(model.source().config(), at::kCPU, at::kDouble, kLength).value();
  const at::Tensor x = at::arange(kLength * kHidden, at::kDouble).sin().view({1, kLength, kHidden});
  const at::Tensor with = graph.Forward(weights, x).output;
  weights.k.bias = at::Tensor();
  EXPECT_LT(Worst(graph.Forward(weights, x).output, with), 1e-12);
  weights.q.bias = at::Tensor();
  EXPECT_GT(Worst(graph.Forward(weights, x).output, with), 1e-3);
}

}  // namespace
}  // namespace latentforge::model
