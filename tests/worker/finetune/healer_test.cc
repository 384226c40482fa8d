#include "worker/finetune/healer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/worker/finetune/tiny_student.h"

namespace latentforge::finetune {
namespace {

using testing::HasSubstr;

class HealerTest : public testing::Test {
 protected:
  void SetUp() override {
    model_ = TinyModel(checkpoint::Family::kQwen3, "healer");
    ASSERT_NE(model_, nullptr);
    factors_ = TinyFactors(*model_, /*joint=*/true, 5);
    calibrate::TokenStream stream{.name = "text"};
    for (int i = 0; i < 1000; ++i) stream.tokens.push_back((i * i + 3 * i) % 61);
    text_ = PrepareTraining({stream}, {.tokens = 80 * 16, .length = 16, .batch = 4}).value();
    options_ = {.dtype = at::kFloat, .learning_rate = 0.02, .warmup_steps = 2, .evaluate_every = 5};
  }

  HealingState Start() const {
    return StartHealing(factors_, options_.optimizer, model_->config().head_dim);
  }
  Healer Make() { return Healer::Create(*model_, text_, options_).value(); }

  static void ExpectSameBits(const HealingState& a, const HealingState& b) {
    ASSERT_EQ(a.layers.size(), b.layers.size());
    EXPECT_EQ(a.steps_done(), b.steps_done());
    EXPECT_EQ(a.best_step(), b.best_step());
    for (size_t l = 0; l < a.layers.size(); ++l) {
      for (size_t i = 0; i < a.layers[l].slots.size(); ++i) {
        if (!a.layers[l].slots[i].master.defined()) continue;
        EXPECT_TRUE(at::equal(a.layers[l].slots[i].master, b.layers[l].slots[i].master));
        EXPECT_TRUE(at::equal(a.layers[l].slots[i].first, b.layers[l].slots[i].first));
        EXPECT_TRUE(
            at::equal(*a.layers[l].best.Named()[i].second, *b.layers[l].best.Named()[i].second));
      }
    }
  }

  std::unique_ptr<checkpoint::Checkpoint> model_;
  std::vector<TrainableWeights> factors_;
  TrainingText text_;
  HealingOptions options_;
};

TEST_F(HealerTest, BringsTheModelCloserToTheOriginal) {
  Healer healer = Make();
  EXPECT_EQ(healer.steps(), 20);
  HealingState state = Start();
  ASSERT_TRUE(healer.Run(state, {}).ok());
  EXPECT_EQ(state.steps_done(), 20);
  EXPECT_EQ(state.steps.size(), 20u);
  ASSERT_EQ(state.measurements.size(), 5u);
  EXPECT_EQ(state.ended_early, "");
  EXPECT_GT(state.best_step(), 0);
  // Measured: 0.88 of the start.
  EXPECT_LT(state.Best()->divergence, 0.95 * state.measurements[0].divergence);
}

TEST_F(HealerTest, AdamWBringsItCloserToo) {
  options_.optimizer = Optimizer::kAdamW;
  Healer healer = Make();
  HealingState state = Start();
  ASSERT_TRUE(healer.Run(state, {}).ok());
  EXPECT_LT(state.Best()->divergence, 0.95 * state.measurements[0].divergence);
}

TEST_F(HealerTest, GoesOnWithTheSameBits) {
  factors_ = TinyFactors(*model_, /*joint=*/true, 5, /*attention=*/true);
  Healer whole = Make();
  HealingState expected = Start();
  ASSERT_TRUE(whole.Run(expected, {}).ok());
  // Stopped in the middle of a step, between measurements.
  int64_t calls = 0;
  options_.stop = [&] { return ++calls > 120; };
  Healer first = Make();
  HealingState state = Start();
  EXPECT_TRUE(absl::IsCancelled(first.Run(state, {})));
  EXPECT_GT(state.steps_done(), 3);
  EXPECT_LT(state.steps_done(), 20);
  options_.stop = nullptr;
  Healer second = Make();
  ASSERT_TRUE(second.Run(state, {}).ok());
  ExpectSameBits(state, expected);
}

TEST_F(HealerTest, TheRateFollowsTheStart) {
  EXPECT_DOUBLE_EQ(SuitableRate(0.04, 10), 2 * SuitableRate(0.01, 10));
  EXPECT_DOUBLE_EQ(SuitableRate(100, 1000), 2e-3);
  EXPECT_DOUBLE_EQ(SuitableRate(0, 10), 1e-4);
  // The longer the run, the smaller the steps of a model that is near, to a point.
  EXPECT_LT(SuitableRate(0.04, 80), SuitableRate(0.04, 40));
  EXPECT_DOUBLE_EQ(SuitableRate(0.04, 1000), SuitableRate(0.04, 10000));
  EXPECT_DOUBLE_EQ(SuitableRate(0.3, 1000), SuitableRate(0.3, 10));
  options_.learning_rate = 0;
  Healer healer = Make();
  HealingState state = Start();
  ASSERT_TRUE(healer.Run(state, {}).ok());
  // The second step ends the warm-up.
  EXPECT_DOUBLE_EQ(state.steps[1].learning_rate,
                   SuitableRate(state.measurements[0].divergence, healer.steps()));
}

TEST_F(HealerTest, KeepsTheBestWhenItGetsWorse) {
  options_.learning_rate = 1000;  // leaves every optimum at once
  options_.patience = 2;
  options_.hopeless = 1;
  options_.evaluate_every = 2;
  Healer healer = Make();
  HealingState state = Start();
  ASSERT_TRUE(healer.Run(state, {}).ok());
  EXPECT_EQ(state.best_step(), 0);
  EXPECT_EQ(state.steps_done(), 4);
  EXPECT_THAT(state.ended_early, HasSubstr("no better after step 0"));
  EXPECT_TRUE(at::equal(state.layers[0].best.kv_down, factors_[0].kv_down));
  // A later attempt ends at once.
  Healer again = Make();
  ASSERT_TRUE(again.Run(state, {}).ok());
  EXPECT_EQ(state.steps_done(), 4);
}

TEST(GivesUpTest, WaitsWhileSmallerStepsBringItDown) {
  const HealingOptions options{.patience = 2, .hopeless = 1.5};
  const auto gives_up = [&](std::vector<double> divergences) {
    HealingState state;
    for (const double divergence : divergences) {
      state.measurements.push_back(
          {.step = 10 * std::ssize(state.measurements), .divergence = divergence});
    }
    return GivesUp(state, /*steps=*/80, options);
  };
  EXPECT_FALSE(gives_up({1.0}));
  EXPECT_FALSE(gives_up({1.0, 1.2, 1.3})) << "the first half is no reason";
  EXPECT_TRUE(gives_up({1.0, 1.6, 1.7})) << "but what is hopeless is";
  EXPECT_FALSE(gives_up({1.0, 1.2, 1.3, 1.4, 1.35, 1.2})) << "it falls";
  EXPECT_TRUE(gives_up({1.0, 1.2, 1.3, 1.4, 1.35, 1.35}));
  EXPECT_FALSE(gives_up({1.0, 1.2, 1.3, 1.4, 0.9, 0.95})) << "the best is new";
}

TEST_F(HealerTest, ALossThatIsNotFiniteEndsItAndNamesTheStep) {
  HealingState state = Start();
  const auto poison = [&](const HealingState&) {
    if (state.steps_done() == 7) {
      state.layers[1].slots[0].master.fill_(std::numeric_limits<float>::quiet_NaN());
    }
    return absl::OkStatus();
  };
  Healer healer = Make();
  ASSERT_TRUE(healer.Run(state, {.step = poison}).ok());
  EXPECT_EQ(state.steps_done(), 7);
  EXPECT_THAT(state.ended_early, HasSubstr("step 8"));
  EXPECT_EQ(state.best_step(), 5);
  EXPECT_TRUE(at::isfinite(state.layers[1].best.kv_down).all().item<bool>());
}

TEST_F(HealerTest, AnErrorOfTheObserverEndsIt) {
  Healer healer = Make();
  HealingState state = Start();
  const absl::Status status = healer.Run(
      state, {.measurement = [](const HealingState&) { return absl::UnavailableError("disk"); }});
  EXPECT_EQ(status.message(), "disk");
}

TEST_F(HealerTest, RefusesFactorsOfAnotherModel) {
  factors_.pop_back();
  HealingState state = Start();
  EXPECT_EQ(Make().Run(state, {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(state.steps_done(), 0);
}

}  // namespace
}  // namespace latentforge::finetune
