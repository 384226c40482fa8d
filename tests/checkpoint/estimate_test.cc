#include "checkpoint/estimate.h"

#include "checkpoint/kv_budget.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

constexpr EstimateSettings kSettings = {.kv_budget = 0.5,
                                        .calibration_sequences = 16,
                                        .sequence_length = 2048,
                                        .evaluation_windows = 8,
                                        .window_length = 2048,
                                        .threads = 2};

ModelConfig SmolLm2(int64_t layers = 30) {
  return ParseModelConfig(TinyConfigJson({.hidden_size = 576,
                                          .intermediate_size = 1536,
                                          .num_layers = layers,
                                          .num_heads = 9,
                                          .num_kv_heads = 3,
                                          .head_dim = 64,
                                          .vocab_size = 49152,
                                          .tie_word_embeddings = true}))
      .value();
}

TEST(EstimateTest, CacheFollowsTheBudget) {
  const absl::StatusOr<Estimate> estimate = EstimateConversion(SmolLm2(), kSettings);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  EXPECT_EQ(estimate->kv_bytes_per_token_base, 23040);
  EXPECT_EQ(estimate->kv_bytes_per_token_converted, 11520);
}

TEST(EstimateTest, MemoryDoesNotDependOnDepth) {
  const Estimate shallow = EstimateConversion(SmolLm2(30), kSettings).value();
  const Estimate deep = EstimateConversion(SmolLm2(120), kSettings).value();
  EXPECT_EQ(shallow.peak_memory_bytes, deep.peak_memory_bytes);
  EXPECT_GT(deep.seconds, 2 * shallow.seconds);
}

TEST(EstimateTest, OutputIsTheArtifactsParametersInTheStoredType) {
  // 134.5 M parameters, of which K and V lose 2 * (192 * 576 - 96 * (192 + 576)) per layer.
  const int64_t parameters = 134515008 - 30 * 2 * (192 * 576 - 96 * (192 + 576));
  const Estimate estimate = EstimateConversion(SmolLm2(), kSettings).value();
  EXPECT_GE(estimate.output_bytes, 2 * parameters);
  EXPECT_LE(estimate.output_bytes, 2 * parameters + (16 << 20));
}

TEST(EstimateTest, MoreWorkTakesLongerAndThreadsHelp) {
  const double base = EstimateConversion(SmolLm2(), kSettings)->seconds;
  EstimateSettings settings = kSettings;
  settings.calibration_sequences *= 4;
  EXPECT_GT(EstimateConversion(SmolLm2(), settings)->seconds, base);
  settings = kSettings;
  settings.threads = 8;
  EXPECT_LT(EstimateConversion(SmolLm2(), settings)->seconds, base);
  settings = kSettings;
  settings.compute_dtype = DType::kBF16;
  EXPECT_LT(EstimateConversion(SmolLm2(), settings)->seconds, base);
  settings = kSettings;
  settings.hessian = true;
  EXPECT_GT(EstimateConversion(SmolLm2(), settings)->seconds, base);
  settings.kv_budget = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(EstimateConversion(SmolLm2(), settings).status()));
}

}  // namespace
}  // namespace latentforge::checkpoint
