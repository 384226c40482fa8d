#include "worker/model/rope.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace latentforge::model {
namespace {

checkpoint::ModelConfig Config() {
  checkpoint::ModelConfig config;
  config.head_dim = 16;
  config.rope_theta = 10000;
  return config;
}

// The formulas of the Llama 3.1 release, in double.
double ReferenceFrequency(const checkpoint::ModelConfig& config, int64_t j) {
  const double plain = std::pow(
      config.rope_theta, -2.0 * static_cast<double>(j) / static_cast<double>(config.head_dim));
  const checkpoint::RopeScaling& s = config.rope_scaling;
  if (s.kind == checkpoint::RopeScaling::Kind::kNone) return plain;
  const auto context = static_cast<double>(s.original_max_position_embeddings);
  const double wavelength = 2 * std::numbers::pi / plain;
  if (wavelength < context / s.high_freq_factor) return plain;
  if (wavelength > context / s.low_freq_factor) return plain / s.factor;
  const double smooth =
      (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * plain / s.factor + smooth * plain;
}

void ExpectFrequencies(const checkpoint::ModelConfig& config) {
  const at::Tensor frequencies = InverseFrequencies(config);
  ASSERT_EQ(frequencies.numel(), config.head_dim / 2);
  for (int64_t j = 0; j < frequencies.numel(); ++j) {
    const double expected = ReferenceFrequency(config, j);
    // A power and a few products in fp32.
    EXPECT_NEAR(frequencies[j].item<double>(), expected, 2e-6 * expected) << j;
  }
}

TEST(Rope, DefaultFrequencies) { ExpectFrequencies(Config()); }

TEST(Rope, Llama3Frequencies) {
  checkpoint::ModelConfig config = Config();
  config.rope_scaling = {.kind = checkpoint::RopeScaling::Kind::kLlama3,
                         .factor = 8,
                         .low_freq_factor = 1,
                         .high_freq_factor = 4,
                         .original_max_position_embeddings = 256};
  ExpectFrequencies(config);
}

class RopeDeviceTest : public testing::TestWithParam<at::ScalarType> {};

// fp32 takes the row kernel, fp64 LibTorch's operations, as a GPU does.
TEST_P(RopeDeviceTest, RotatesPairsAtEveryPosition) {
  constexpr int64_t kLength = 5, kHeads = 2, kHalf = 8;
  const RopeTable table = MakeRopeTable(Config(), 9, at::kCPU, GetParam());
  const at::Tensor x = at::arange(2 * kLength * kHeads * 2 * kHalf, at::kDouble).sin();
  const at::Tensor y = x.view({2 * kLength, -1}).to(GetParam(), false, /*copy=*/true);
  ApplyRope(y, kLength, table);
  const at::Tensor before = x.view({2, kLength, kHeads, 2, kHalf});
  const at::Tensor after = y.view({2, kLength, kHeads, 2, kHalf});
  for (int64_t s = 0; s < 2; ++s) {
    for (int64_t t = 0; t < kLength; ++t) {
      for (int64_t j = 0; j < kHalf; ++j) {
        const double angle = static_cast<double>(t) * ReferenceFrequency(Config(), j);
        const double a = before[s][t][1][0][j].item<double>();
        const double b = before[s][t][1][1][j].item<double>();
        EXPECT_NEAR(after[s][t][1][0][j].item<double>(), a * std::cos(angle) - b * std::sin(angle),
                    2e-6);
        EXPECT_NEAR(after[s][t][1][1][j].item<double>(), b * std::cos(angle) + a * std::sin(angle),
                    2e-6);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, RopeDeviceTest, testing::Values(at::kFloat, at::kDouble));

}  // namespace
}  // namespace latentforge::model
