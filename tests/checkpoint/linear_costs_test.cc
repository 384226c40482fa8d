#include "checkpoint/linear_costs.h"

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/tensor_catalogue.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

ModelConfig Config(const TinyOptions& options) {
  return ParseModelConfig(TinyConfigJson(options)).value();
}

// The same from the table of tensors: what a forward pass multiplies by lies in matrices and
// biases of the layers, and norms are the only other tensors there.
LinearCosts FromTensors(const ModelConfig& config) {
  LinearCosts costs;
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    if (!absl::StartsWith(spec.name, "model.layers.")) continue;
    if (spec.shape.size() == 2) costs.weights += spec.shape[0] * spec.shape[1];
    if (absl::EndsWith(spec.name, ".bias")) costs.biases += spec.shape[0];
  }
  return costs;
}

std::vector<TinyOptions> EveryMethod(Family family) {
  const std::vector<LinearRanks> ranks = {
      {.q = 8, .k = 7, .v = 6, .o = 5, .gate = 9, .up = 10, .down = 11}, {.v = 3, .gate = 4}};
  Json biases = Json::object();
  if (family == Family::kLlama) biases = {{"attention_bias", true}, {"mlp_bias", true}};
  std::vector<TinyOptions> options(6, TinyOptions{.family = family, .config_overrides = biases});
  options[1].ranks = {{4, 16, 0}, {16, 3, 0}};
  options[2].ranks = {{0, 0, 9}, {0, 0, 32}};
  options[2].joint = true;
  options[3].low_rank = LowRankConfig{.ranks = ranks};
  options[4].low_rank = LowRankConfig{.block_identity = false, .ranks = ranks};
  options[5].low_rank = LowRankConfig{.bias = true, .ranks = ranks};
  return options;
}

TEST(LinearCostsTest, CountsWhatTheTensorsHold) {
  for (const Family family : {Family::kLlama, Family::kMistral, Family::kQwen2, Family::kQwen3}) {
    for (const TinyOptions& options : EveryMethod(family)) {
      const ModelConfig config = Config(options);
      const LinearCosts costs = DecoderLinearCosts(config);
      EXPECT_EQ(costs.weights, FromTensors(config).weights) << TinyConfigJson(options);
      EXPECT_EQ(costs.biases, FromTensors(config).biases) << TinyConfigJson(options);
      EXPECT_EQ(costs.macs_per_token(), costs.weights);
      EXPECT_EQ(costs.parameters(), costs.weights + costs.biases);
    }
  }
}

// Worked out by hand for one layer of each kind: D = 32, m = 16, F = 48.
TEST(LinearCostsTest, FiguresOfATinyModel) {
  const int64_t dense = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32;
  EXPECT_EQ(DecoderLinearCosts(Config({})).weights, 2 * dense);
  TinyOptions options;
  options.low_rank = LowRankConfig{.bias = true, .ranks = {{.q = 8}, {.down = 10}}};
  const LinearCosts costs = DecoderLinearCosts(Config(options));
  EXPECT_EQ(costs.weights, 2 * dense - 32 * 32 + 8 * (64 - 8) - 32 * 48 + 10 * (80 - 10));
  EXPECT_EQ(costs.biases, 32 + 32);
}

// Pair by pair and layer by layer: 32 query channels in all heads, twice.
TEST(AttentionMacsTest, PrefillCountsVisiblePairs) {
  for (const int64_t window : {0, 1, 5, 100}) {
    TinyOptions options{.family = Family::kMistral};
    if (window > 0) options.config_overrides = {{"sliding_window", window}};
    const ModelConfig config = Config(options);
    int64_t pairs = 0;
    for (int64_t query = 0; query < 12; ++query) {
      for (int64_t key = 0; key <= query; ++key) pairs += window == 0 || key > query - window;
    }
    EXPECT_EQ(PrefillAttentionMacs(config, 12), 2.0 * (2 * 32) * double(pairs)) << window;
  }
}

// 16 rows of an up projection for each cached number of each other token.
TEST(AttentionMacsTest, DecodeExpandsWhatIsCached) {
  const double products = 2.0 * (2 * 32) * 10;
  TinyOptions options;
  EXPECT_EQ(DecodeAttentionMacs(Config(options), 10), products);
  options.ranks = {{4, 16, 0}, {16, 3, 0}};
  EXPECT_EQ(DecodeAttentionMacs(Config(options), 10), products + 9 * 16 * (4 + 3));
  options.ranks = {{0, 0, 9}, {0, 0, 32}};
  options.joint = true;
  EXPECT_EQ(DecodeAttentionMacs(Config(options), 10), products + 9 * 16 * (9 + 9));
  options.low_rank = LowRankConfig{.ranks = {{.q = 8, .k = 7, .v = 6}, {.v = 2, .down = 9}}};
  EXPECT_EQ(DecodeAttentionMacs(Config(options), 10), products + 9 * 16 * (7 + 6 + 2));
  EXPECT_EQ(DecodeAttentionMacs(Config(options), 1), 2.0 * (2 * 32));
}

TEST(AttentionMacsTest, AWindowBoundsADecodedToken) {
  TinyOptions options{.family = Family::kMistral, .config_overrides = {{"sliding_window", 4}}};
  options.low_rank = LowRankConfig{.ranks = {{.k = 7}, {}}};
  EXPECT_EQ(DecodeAttentionMacs(Config(options), 100), 2.0 * (2 * 32) * 4 + 3 * 16 * 7);
}

}  // namespace
}  // namespace latentforge::checkpoint
