#include "checkpoint/tensor_catalogue.h"

#include <set>
#include <string>

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

TEST(TensorCatalogueTest, IgnoresOnlyRotaryLeftovers) {
  EXPECT_TRUE(IsIgnoredTensor("model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_TRUE(IsIgnoredTensor("model.rotary_emb.inv_freq"));
  EXPECT_FALSE(IsIgnoredTensor("model.layers.0.self_attn.q_proj.bias"));
}

}  // namespace
}  // namespace latentforge::checkpoint
