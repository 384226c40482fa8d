#include "worker/finetune/adam_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace latentforge::finetune {
namespace {

// Neither a multiple of a vector's lanes nor below them: loops have a body and a rest.
constexpr int64_t kWidth = 67;

std::vector<float> Wave(double frequency, double size, double offset) {
  std::vector<float> values;
  for (int64_t i = 0; i < kWidth; ++i) {
    values.push_back(float(offset + size * std::sin(frequency * double(i + 1))));
  }
  return values;
}

// Each result is a handful of fp32 operations, without cancellation by the choice of sizes.
constexpr double kRelative = 8 * 0x1p-24;

TEST(AdamRowsTest, UpdatesMoments) {
  const std::vector<float> gradient = Wave(1.3, 2, 5);
  std::vector<float> first = Wave(0.7, 1, 3), second = Wave(0.4, 1, 2);
  const std::vector<float> m = first, v = second;
  UpdateMoments(gradient.data(), 0.5f, kWidth, 0.9f, 0.98f, first.data(), second.data());
  for (size_t i = 0; i < kWidth; ++i) {
    const double g = 0.5 * double(gradient[i]);
    const double beta1 = 0.9f, beta2 = 0.98f;
    const double expected_first = beta1 * double(m[i]) + (1 - beta1) * g;
    const double expected_second = beta2 * double(v[i]) + (1 - beta2) * g * g;
    EXPECT_NEAR(first[i], expected_first, kRelative * expected_first);
    EXPECT_NEAR(second[i], expected_second, kRelative * expected_second);
  }
}

double Moved(double x, double m, double v, double floor, double pace, double keep) {
  return keep * x - pace * m / (std::sqrt(v) + floor);
}

TEST(AdamRowsTest, MovesOneLatentAndAcrossLatents) {
  const std::vector<float> first = Wave(1.1, 1, -3), second = Wave(0.3, 1, 2);
  const std::vector<float> floor = Wave(0.9, 0.1, 0.3), pace = Wave(0.2, 0.01, 0.05);
  const std::vector<float> keep = Wave(0.8, 0.1, 0.9), start = Wave(0.5, 1, 4);
  std::vector<float> one = start, each = start;
  MoveLatent(first.data(), second.data(), {.floor = 0.25f, .pace = 0.5f, .keep = 0.75f}, kWidth,
             one.data());
  MoveAcrossLatents(first.data(), second.data(), floor.data(), pace.data(), keep.data(), kWidth,
                    each.data());
  for (size_t i = 0; i < kWidth; ++i) {
    const double alone = Moved(start[i], first[i], second[i], 0.25, 0.5, 0.75);
    const double apart = Moved(start[i], first[i], second[i], floor[i], pace[i], keep[i]);
    EXPECT_NEAR(one[i], alone, kRelative * alone);
    EXPECT_NEAR(each[i], apart, kRelative * apart);
  }
}

TEST(AdamRowsTest, NothingMovesWithoutMoments) {
  const std::vector<float> zeros(kWidth, 0.0f);
  const std::vector<float> start = Wave(0.5, 1, 4);
  std::vector<float> x = start;
  MoveLatent(zeros.data(), zeros.data(), {.floor = 0, .pace = 1, .keep = 1}, kWidth, x.data());
  EXPECT_EQ(x, start);
}

}  // namespace
}  // namespace latentforge::finetune
