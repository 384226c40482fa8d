#include "checkpoint/tensor_catalogue.h"

#include <map>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

using ::testing::Contains;
using ::testing::Not;

ModelConfig Config(const TinyOptions& options) {
  return ParseModelConfig(TinyConfigJson(options)).value();
}

std::set<std::string> Names(const ModelConfig& config) {
  std::set<std::string> names;
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
  }
  return names;
}

TEST(TensorCatalogueTest, CountsOfEveryFamilyFollowFromItsEquations) {
  // Llama, one layer: 2 norms, q, k, v, o, gate, up, down. D = 32, I = 48, m = 16.
  const int64_t layer = 2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32;
  const int64_t outside = 2 * 64 * 32 + 32;
  EXPECT_EQ(NumParameters(Config({})), 2 * layer + outside);
  EXPECT_EQ(NumParameters(Config({.family = Family::kMistral})), 2 * layer + outside);
  EXPECT_EQ(NumParameters(Config({.family = Family::kQwen2})),
            2 * (layer + 32 + 16 + 16) + outside);
  EXPECT_EQ(NumParameters(Config({.family = Family::kQwen3})), 2 * (layer + 8 + 8) + outside);
  EXPECT_EQ(NumParameters(Config({.tie_word_embeddings = true})), 2 * layer + outside - 64 * 32);
  const Json biased = {{"attention_bias", true}, {"mlp_bias", true}};
  EXPECT_EQ(NumParameters(Config({.config_overrides = biased})),
            2 * (layer + 32 + 16 + 16 + 32 + 48 + 48 + 32) + outside);
}

TEST(TensorCatalogueTest, TiedModelsHaveNoHead) {
  EXPECT_THAT(Names(Config({})), Contains(kLmHead));
  EXPECT_THAT(Names(Config({.tie_word_embeddings = true})), Not(Contains(kLmHead)));
}

TEST(TensorCatalogueTest, ArtifactsHaveTheTensorsOfTheArchitectureDocument) {
  const ModelConfig separate =
      Config({.family = Family::kQwen2, .ranks = {{4, 16, 0}, {16, 3, 0}}});
  const std::set<std::string> names = Names(separate);
  for (const char* suffix : {"k_down_proj.weight", "k_up_proj.weight", "k_up_proj.bias",
                             "v_proj.weight", "v_proj.bias"}) {
    EXPECT_THAT(names, Contains(LayerTensor(0, std::string("self_attn.") + suffix)));
  }
  for (const char* suffix : {"k_down_proj.bias", "k_proj.weight", "v_up_proj.weight"}) {
    EXPECT_THAT(names, Not(Contains(LayerTensor(0, std::string("self_attn.") + suffix))));
  }
  const ModelConfig joint = Config({.ranks = {{0, 0, 8}, {0, 0, 32}}, .joint = true});
  EXPECT_THAT(Names(joint), Contains(LayerTensor(0, "self_attn.kv_down_proj.weight")));
  EXPECT_THAT(Names(joint), Not(Contains(LayerTensor(0, "self_attn.k_up_proj.bias"))));
  EXPECT_THAT(Names(joint), Contains(LayerTensor(1, "self_attn.v_proj.weight")));
  for (const TensorSpec& spec : LayerTensors(joint, 0)) {
    if (spec.name == LayerTensor(0, "self_attn.kv_down_proj.weight")) {
      EXPECT_EQ(spec.shape, (Shape{8, 32}));
    }
    if (spec.name == LayerTensor(0, "self_attn.k_up_proj.weight")) {
      EXPECT_EQ(spec.shape, (Shape{16, 8}));
    }
  }
}

TEST(TensorCatalogueTest, LowRankMapsHaveTheTensorsOfTheArchitectureDocument) {
  TinyOptions options{.family = Family::kQwen2};
  options.low_rank = LowRankConfig{.ranks = {{.q = 5, .o = 7, .gate = 9}, {.k = 3, .down = 11}}};
  const auto shapes = [&] {
    std::map<std::string, Shape> found;
    for (const TensorSpec& spec : ExpectedTensors(Config(options))) {
      EXPECT_EQ(spec.kind == TensorSpec::Kind::kOrder, absl::EndsWith(spec.name, ".order"));
      found[spec.name] = spec.shape;
    }
    return found;
  };
  const std::string first = LayerTensor(0, ""), second = LayerTensor(1, "");
  std::map<std::string, Shape> found = shapes();
  EXPECT_EQ(found[first + "self_attn.q_proj.order"], (Shape{32}));
  EXPECT_EQ(found[first + "self_attn.q_proj.down.weight"], (Shape{5, 32 - 5}));
  EXPECT_EQ(found[first + "self_attn.q_proj.up.weight"], (Shape{32, 5}));
  EXPECT_EQ(found[first + "self_attn.q_proj.up.bias"], (Shape{32}));
  EXPECT_EQ(found[second + "mlp.down_proj.order"], (Shape{48}));
  EXPECT_EQ(found[second + "mlp.down_proj.down.weight"], (Shape{11, 48 - 11}));
  // Dense maps keep the source's names; a map without a bias in the source gets none.
  EXPECT_TRUE(found.contains(first + "self_attn.k_proj.weight"));
  EXPECT_TRUE(found.contains(first + "self_attn.k_proj.bias"));
  EXPECT_FALSE(found.contains(first + "self_attn.q_proj.weight"));
  EXPECT_FALSE(found.contains(first + "mlp.gate_proj.up.bias"));

  options.low_rank->block_identity = false;
  options.low_rank->bias = true;
  found = shapes();
  EXPECT_FALSE(found.contains(first + "self_attn.q_proj.order"));
  EXPECT_EQ(found[first + "self_attn.q_proj.down.weight"], (Shape{5, 32}));
  EXPECT_EQ(found[first + "mlp.gate_proj.up.bias"], (Shape{48}));
  EXPECT_FALSE(found.contains(first + "mlp.up_proj.bias"));  // dense: as the source
}

TEST(TensorCatalogueTest, AnOrderTakesBytesButIsNoParameter) {
  TinyOptions options;
  const ModelConfig dense = Config(options);
  options.low_rank = LowRankConfig{.ranks = {{.q = 8}, {.gate = 8}}};
  const ModelConfig config = Config(options);
  const int64_t saved = (32 * 32 - 8 * (32 + 32 - 8)) + (48 * 32 - 8 * (48 + 32 - 8));
  EXPECT_EQ(NumParameters(config), NumParameters(dense) - saved);
  EXPECT_EQ(StoredBytes(config, DType::kBF16), 2 * NumParameters(config) + 4 * (32 + 32));
  EXPECT_EQ(StoredBytes(dense, DType::kF32), 4 * NumParameters(dense));
}

TEST(TensorCatalogueTest, IgnoresOnlyRotaryLeftovers) {
  EXPECT_TRUE(IsIgnoredTensor("model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_TRUE(IsIgnoredTensor("model.rotary_emb.inv_freq"));
  EXPECT_FALSE(IsIgnoredTensor("model.layers.0.self_attn.q_proj.bias"));
}

}  // namespace
}  // namespace latentforge::checkpoint
