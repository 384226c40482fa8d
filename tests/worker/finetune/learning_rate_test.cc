#include "worker/finetune/learning_rate.h"

#include <gtest/gtest.h>

namespace latentforge::finetune {
namespace {

TEST(LearningRateTest, RisesThenFallsAsACosine) {
  EXPECT_DOUBLE_EQ(LearningRate(0, 100, 5, 1.0), 0.2);
  EXPECT_DOUBLE_EQ(LearningRate(4, 100, 5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(5, 105, 5, 2.0), 2.0);
  EXPECT_DOUBLE_EQ(LearningRate(55, 105, 5, 2.0), 1.0);
  // One step before the zero of the cosine: (1 - cos(pi / 100)) / 2.
  EXPECT_NEAR(LearningRate(104, 105, 5, 1.0), 2.467e-4, 1e-7);
}

TEST(LearningRateTest, FewerStepsThanTheWarmUpAreAllWarmUp) {
  EXPECT_DOUBLE_EQ(LearningRate(0, 2, 5, 1.0), 0.5);
  EXPECT_DOUBLE_EQ(LearningRate(1, 2, 5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(0, 1, 0, 1.0), 1.0);
}

}  // namespace
}  // namespace latentforge::finetune
