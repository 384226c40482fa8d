#include "checkpoint/inspect.h"

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

using ::testing::ElementsAre;

class InspectTest : public ::testing::Test {
 protected:
  ~InspectTest() override { RemoveTree(dir_).IgnoreError(); }  // only scratch

  ModelSummary Inspect(const TinyOptions& options) {
    EXPECT_TRUE(WriteTinyCheckpoint(dir_, options).ok());
    return Summarize(Checkpoint::Open(dir_).value());
  }

  const std::filesystem::path dir_ = NewTestDirectory("inspect");
};

TEST_F(InspectTest, SummarizesABaseModel) {
  const ModelSummary summary =
      Inspect({.family = Family::kQwen3,
               .dtype = DType::kBF16,
               .config_overrides = {
                   {"use_sliding_window", true}, {"sliding_window", 8}, {"max_window_layers", 1}}});
  EXPECT_EQ(summary.family, "qwen3");
  EXPECT_FALSE(summary.converted);
  EXPECT_EQ(summary.attention, "GQA");
  EXPECT_THAT(summary.dtypes, ElementsAre("BF16"));
  EXPECT_EQ(summary.weight_bytes, 2 * summary.parameters);
  EXPECT_EQ(summary.layers_with_window, 1);
  EXPECT_EQ(summary.kv_bytes_per_token, 2 * 2 * 16 * 2);
  ASSERT_EQ(summary.budgets.size(), 4u);
  EXPECT_EQ(summary.budgets[0].label, "2/3");
  EXPECT_EQ(summary.budgets[0].rank_totals.k, 21);  // floor(2/3 * 32)
  EXPECT_EQ(summary.budgets[0].uniform_rank, 10);
  EXPECT_EQ(summary.budgets[1].uniform_rank, 8);
  EXPECT_EQ(summary.budgets[3].bytes_per_token, 32);
  for (const BudgetOption& option : summary.budgets) EXPECT_TRUE(option.feasible);
}

TEST_F(InspectTest, SummarizesAnArtifact) {
  const ModelSummary summary = Inspect({.num_kv_heads = 1, .ranks = {{4, 8, 0}, {1, 2, 0}}});
  EXPECT_TRUE(summary.converted);
  EXPECT_EQ(summary.attention, "MQA");
  EXPECT_EQ(summary.model_type, "latentforge");
  EXPECT_EQ(summary.kv_values_per_token, 15);
  EXPECT_EQ(summary.kv_bytes_per_token, 60);
  EXPECT_EQ(summary.kv_bytes_per_token_dense, 128);
  EXPECT_TRUE(summary.budgets.empty());
}

TEST_F(InspectTest, CountsLowRankMapsAndTheirCache) {
  const ModelSummary dense = Inspect({});
  const ModelSummary summary =
      Inspect({.low_rank = LowRankConfig{.ranks = {{.q = 8, .k = 5}, {.down = 9}}}});
  EXPECT_TRUE(summary.converted);
  EXPECT_EQ(summary.model_type, "latentforge");
  const int64_t saved = (32 * 32 - 8 * 56) + (16 * 32 - 5 * 43) + (32 * 48 - 9 * 71);
  EXPECT_EQ(summary.parameters, dense.parameters - saved);
  // The orders of q and k have 32 entries each, that of down 48.
  EXPECT_EQ(summary.weight_bytes, 4 * summary.parameters + 4 * (32 + 32 + 48));
  EXPECT_THAT(summary.dtypes, ElementsAre("F32"));
  EXPECT_EQ(summary.kv_values_per_token, 5 + 16 + 16 + 16);
  EXPECT_TRUE(summary.budgets.empty());
}

TEST_F(InspectTest, SaysWhichBudgetsAreInfeasible) {
  const ModelSummary summary = Inspect({.num_kv_heads = 1, .head_dim = 2});
  EXPECT_TRUE(summary.budgets[1].feasible);
  EXPECT_FALSE(summary.budgets[3].feasible);
  EXPECT_EQ(summary.budgets[3].uniform_rank, 0);
}

TEST(ConfigFactsTest, ShowFamilyAndSizesOfAnyConfig) {
  const auto facts = ConfigFacts(
      R"({"n_layer": 12, "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "x": 1})");
  ASSERT_EQ(facts.size(), 3u);
  EXPECT_EQ(facts[0], std::make_pair(std::string("model_type"), Json("gpt2")));
  EXPECT_EQ(facts[1].second[0], "GPT2LMHeadModel");
  EXPECT_EQ(facts[2], std::make_pair(std::string("n_layer"), Json(12)));
  for (const char* text : {"", "{", "[]", "{}"}) EXPECT_TRUE(ConfigFacts(text).empty()) << text;
}

}  // namespace
}  // namespace latentforge::checkpoint
