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

ModelConfig Wide() {
  return ParseModelConfig(TinyConfigJson({.hidden_size = 2048,
                                          .intermediate_size = 8192,
                                          .num_layers = 4,
                                          .num_heads = 32,
                                          .num_kv_heads = 8,
                                          .head_dim = 64,
                                          .vocab_size = 49152,
                                          .tie_word_embeddings = true}))
      .value();
}

ModelConfig Mha() {
  return ParseModelConfig(TinyConfigJson({.hidden_size = 2048,
                                          .intermediate_size = 5632,
                                          .num_layers = 2,
                                          .num_heads = 32,
                                          .num_kv_heads = 32,
                                          .head_dim = 64,
                                          .vocab_size = 128256}))
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

// What du says of artifacts: SmolLM2-135M-Instruct at half of its cache, and the widened
// models of the next test.
TEST(EstimateTest, OutputIsWithinAPercentOfMeasuredArtifacts) {
  const auto within = [](const absl::StatusOr<Estimate>& estimate, double measured) {
    ASSERT_TRUE(estimate.ok()) << estimate.status();
    EXPECT_NEAR(double(estimate->output_bytes) / measured, 1, 0.01);
  };
  within(EstimateConversion(SmolLm2(), kSettings), 268'203'949);
  within(EstimateConversion(Wide(), kSettings), 685'170'606);
  within(EstimateConversion(Mha(), kSettings), 1'259'771'053);
  EstimateSettings joint = kSettings;
  joint.joint = true;
  within(EstimateConversion(Wide(), joint), 687'271'395);
}

struct Measured {
  const char* what;
  ModelConfig config;
  DType dtype;
  StatisticsKind statistics;
  double mib;  // peak resident set that the conversion reported
};

// Conversions on two cores with AMX, two threads, in November 2026, texts of 0.7 and 0.2 MB:
// 2 sequences of 2,048 tokens, 4 windows of 2,048. Random weights but for SmolLM2.
TEST(EstimateTest, MemoryIsWithinAQuarterOfMeasuredPeaks) {
  using Kind = StatisticsKind;
  const Measured runs[] = {{"SmolLM2-135M's width", SmolLm2(4), DType::kBF16, Kind::kOutputs, 223},
                           {"SmolLM2-135M's width", SmolLm2(4), DType::kF32, Kind::kOutputs, 282},
                           {"SmolLM2-135M's width", SmolLm2(4), DType::kBF16, Kind::kFisher, 241},
                           {"SmolLM2-135M's width", SmolLm2(4), DType::kF32, Kind::kFisher, 296},
                           {"wide", Wide(), DType::kBF16, Kind::kOutputs, 482},
                           {"wide", Wide(), DType::kF32, Kind::kOutputs, 768},
                           {"wide", Wide(), DType::kBF16, Kind::kFisher, 562},
                           {"multi-head", Mha(), DType::kBF16, Kind::kOutputs, 565},
                           {"multi-head", Mha(), DType::kBF16, Kind::kCross, 688},
                           {"multi-head", Mha(), DType::kBF16, Kind::kCovariance, 626}};
  for (const Measured& run : runs) {
    const EstimateSettings settings = {.calibration_sequences = 2,
                                       .sequence_length = 2048,
                                       .evaluation_windows = 4,
                                       .window_length = 2048,
                                       .compute_dtype = run.dtype,
                                       .threads = 2,
                                       .statistics = run.statistics,
                                       .joint = run.statistics == Kind::kFisher};
    const absl::StatusOr<Estimate> estimate = EstimateConversion(run.config, settings);
    ASSERT_TRUE(estimate.ok()) << estimate.status();
    const double ratio = double(estimate->peak_memory_bytes) / (run.mib * (1 << 20));
    EXPECT_GT(ratio, 0.8) << run.what << ", statistics " << int(run.statistics);
    EXPECT_LT(ratio, 1.25) << run.what << ", statistics " << int(run.statistics);
  }
}

// SmolLM2-135M-Instruct on two idle cores with AMX: 2 sequences and 1 window of 2,048 in
// 10.9 s; the evaluation alone takes 474 tokens a second in fp32.
// 30 layers, two sequences of 512 tokens a step: 499 MiB, 40,960 tokens in 186 s.
TEST(EstimateTest, HealingIsWithinAQuarterOfItsMeasuredPeakAndAFactorOfTwoOfItsTime) {
  EstimateSettings settings = kSettings;
  settings.compute_dtype = DType::kBF16;
  settings.statistics = StatisticsKind::kFisher;
  settings.joint = true;
  const Estimate without = EstimateConversion(SmolLm2(), settings).value();
  settings.healing_tokens = 40960;
  settings.healing_batch_tokens = 1024;
  const Estimate with = EstimateConversion(SmolLm2(), settings).value();
  EXPECT_NEAR(double(with.peak_memory_bytes) / (499.0 * (1 << 20)), 1, 0.25);
  const double seconds = with.seconds - without.seconds;
  EXPECT_GT(seconds, 186 / 2.0);
  EXPECT_LT(seconds, 186 * 2.0);
}

// The wide model with kept statistics: 640 MiB.
// SmolLM2-135M-Instruct, 8 sequences of 2,048 tokens: 47 s for the pass beside other work, with
// which the evaluation took 35 s instead of 28.
TEST(EstimateTest, TheAnchoredPassIsWithinAQuarterOfItsMeasuredPeakAndAFactorOfTwoOfItsTime) {
  EstimateSettings settings = kSettings;
  settings.compute_dtype = DType::kBF16;
  settings.statistics = StatisticsKind::kFisher;
  settings.joint = true;
  settings.calibration_sequences = 8;
  const Estimate without = EstimateConversion(SmolLm2(), settings).value();
  settings.anchored = true;
  const Estimate with = EstimateConversion(SmolLm2(), settings).value();
  EXPECT_EQ(with.peak_memory_bytes, without.peak_memory_bytes) << "calibration takes more";
  const double seconds = with.seconds - without.seconds;
  const double measured = 47 * 28 / 35.0;
  EXPECT_GT(seconds, measured / 2);
  EXPECT_LT(seconds, measured * 2);
  settings.calibration_sequences = 2;
  const double peak = double(EstimateConversion(Wide(), settings)->peak_memory_bytes);
  EXPECT_GT(peak / (640.0 * (1 << 20)), 0.8);
  EXPECT_LT(peak / (640.0 * (1 << 20)), 1.25);
  settings.anchored = false;
  EXPECT_LT(double(EstimateConversion(Wide(), settings)->peak_memory_bytes), peak);
}

EstimateSettings LowRank() {
  EstimateSettings settings = kSettings;
  settings.parameter_ratio = 0.3;
  settings.compute_dtype = DType::kBF16;
  settings.statistics = StatisticsKind::kLinear;
  return settings;
}

// Two layers of 512 with 4,096 channels, random weights, two threads: 4 sequences and 2 windows of
// 1,024 tokens.
TEST(EstimateTest, LowRankIsWithinAQuarterOfMeasuredPeaks) {
  const ModelConfig config = ParseModelConfig(TinyConfigJson({.hidden_size = 512,
                                                              .intermediate_size = 4096,
                                                              .num_layers = 2,
                                                              .num_heads = 8,
                                                              .num_kv_heads = 8,
                                                              .head_dim = 64,
                                                              .vocab_size = 320,
                                                              .tie_word_embeddings = true}))
                                 .value();
  const struct {
    const char* preconditioner;
    bool inner_covariance, inner_inverse, gradients;
    double mib;
  } kRuns[] = {{"root-covariance", false, false, false, 294},
               {"covariance", true, false, false, 593},
               {"diagonal-hessian", true, true, false, 750},
               {"fisher", false, false, true, 263}};
  for (const auto& run : kRuns) {
    EstimateSettings settings = LowRank();
    settings.calibration_sequences = 4;
    settings.sequence_length = 1024;
    settings.evaluation_windows = 2;
    settings.window_length = 1024;
    settings.inner_covariance = run.inner_covariance;
    settings.inner_inverse = run.inner_inverse;
    settings.gradients = run.gradients;
    const Estimate estimate = EstimateConversion(config, settings).value();
    const double ratio = double(estimate.peak_memory_bytes) / (run.mib * (1 << 20));
    EXPECT_GT(ratio, 0.8) << run.preconditioner;
    EXPECT_LT(ratio, 1.25) << run.preconditioner;
  }
}

// Moments of 8,192 channels take 512 MiB, and several times that while they are inverted.
TEST(EstimateTest, TheCovarianceOfInnerChannelsCountsForLowRank) {
  EstimateSettings settings = LowRank();
  const Estimate without = EstimateConversion(Wide(), settings).value();
  settings.inner_covariance = true;
  const Estimate with = EstimateConversion(Wide(), settings).value();
  const int64_t moment = int64_t{8} * 8192 * 8192;
  EXPECT_GT(with.peak_memory_bytes, without.peak_memory_bytes + 2 * moment);
  EXPECT_LT(with.peak_memory_bytes, without.peak_memory_bytes + 4 * moment);
  settings.inner_inverse = true;
  const Estimate inverted = EstimateConversion(Wide(), settings).value();
  EXPECT_GT(inverted.peak_memory_bytes, with.peak_memory_bytes);
  EXPECT_GT(inverted.seconds, with.seconds);
  // 2 F^2 a token at 75 Gflop/s a thread.
  const double product = 16 * 2048 * 4 * 2.0 * 8192 * 8192 / (2 * 75e9);
  EXPECT_GT(with.seconds, without.seconds + product);
}

TEST(EstimateTest, ThePassBackOfLowRankTakesAnEighthOrFourThousandTokens) {
  const auto more = [](int64_t sequences, int64_t length) {
    EstimateSettings settings = LowRank();
    settings.calibration_sequences = sequences;
    settings.sequence_length = length;
    const Estimate without = EstimateConversion(SmolLm2(), settings).value();
    settings.gradients = true;
    const Estimate with = EstimateConversion(SmolLm2(), settings).value();
    EXPECT_GT(with.peak_memory_bytes, without.peak_memory_bytes);
    return with.seconds - without.seconds;
  };
  const double least = more(2, 2048);  // all of it
  EXPECT_GT(least, 0);
  EXPECT_NEAR(more(16, 2048), least, 1e-6);
  const double pass = more(32, 2048) - least;  // of 4,096 tokens
  EXPECT_GT(pass, 0);
  EXPECT_NEAR(more(160, 2048), least + 9 * pass, 1e-6);
}

TEST(EstimateTest, TimeIsWithinAFactorOfTwoOfMeasuredRuns) {
  EstimateSettings settings = kSettings;
  settings.calibration_sequences = 2;
  settings.evaluation_windows = 1;
  settings.compute_dtype = DType::kBF16;
  const double whole = EstimateConversion(SmolLm2(), settings)->seconds;
  EXPECT_GT(whole, 10.9 / 2);
  EXPECT_LT(whole, 10.9 * 2);
  settings.compute_dtype = DType::kF32;
  const double one = EstimateConversion(SmolLm2(), settings)->seconds;
  settings.evaluation_windows = 2;
  const double window = EstimateConversion(SmolLm2(), settings)->seconds - one;
  const double measured = 2 * 2048 / 474.0;
  EXPECT_GT(window, measured / 2);
  EXPECT_LT(window, measured * 2);
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
  settings.statistics = StatisticsKind::kCovariance;
  EXPECT_GT(EstimateConversion(SmolLm2(), settings)->seconds, base);
  settings.statistics = StatisticsKind::kFisher;
  EXPECT_GT(EstimateConversion(SmolLm2(), settings)->seconds, 2 * base);
  settings.kv_budget = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(EstimateConversion(SmolLm2(), settings).status()));
}

}  // namespace
}  // namespace latentforge::checkpoint
