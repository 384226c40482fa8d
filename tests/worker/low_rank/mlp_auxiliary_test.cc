#include "worker/low_rank/mlp_auxiliary.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/worker/low_rank/mlp_reference.h"

namespace latentforge::low_rank {
namespace {

constexpr Activation kActivations[] = {Activation::kRelu, Activation::kSwiGlu};

// From far apart to equal.
const std::vector<Penalties> kPenalties = {
    {.alpha = 1, .alpha_gate = 1, .beta = 1, .gamma = 1},
    {.alpha = 0.1, .alpha_gate = 3, .beta = 2, .gamma = 0.5},
    {.alpha = 5, .alpha_gate = 0.2, .beta = 0.3, .gamma = 10}};

// A point in the middle of an alternation: nothing fits anything.
struct State {
  MlpShape shape;
  MlpProblem problem;
  LowRankMlp low;
  InnerRows inner;
  InnerRows fitted;
  at::Tensor hidden;
  at::Tensor y;
};

State MakeState(Activation activation, uint64_t seed) {
  State s{.shape = {.activation = activation, .d = 6, .f = 15, .n = 30}};
  s.problem = MakeMlpProblem(s.shape, seed);
  s.low = RandomLowRankMlp(s.shape, 4, seed + 20);
  s.inner = InnerRowsOf(s.problem.mlp, s.problem.original);
  s.fitted = InnerRowsOf(s.low, s.problem.original);
  s.hidden = Activate(activation, s.inner) + 0.5 * RandomMatrix(30, 15, seed + 60);
  s.y = OutputRowsOf(s.problem.mlp, s.problem.original);
  return s;
}

// L4 by loops over tokens and elements.
double SlowLoss(const State& s, const Penalties& p) {
  const bool gated = s.shape.activation == Activation::kSwiGlu;
  const at::Tensor w = DenseWeight(s.low.down);
  double loss = 0;
  for (int64_t t = 0; t < s.shape.n; ++t) {
    for (int64_t i = 0; i < s.shape.f; ++i) {
      const double z = s.inner.up[t][i].item<double>();
      const double gate = gated ? s.inner.gate[t][i].item<double>() : 0;
      loss += p.alpha * std::pow(s.fitted.up[t][i].item<double>() - z, 2);
      if (gated) loss += p.alpha_gate * std::pow(s.fitted.gate[t][i].item<double>() - gate, 2);
      const double h = SlowActivation(s.shape.activation, z, gate);
      loss += p.beta * std::pow(s.hidden[t][i].item<double>() - h, 2);
    }
    for (int64_t j = 0; j < s.shape.d; ++j) {
      double y = s.low.down.bias[j].item<double>();
      for (int64_t i = 0; i < s.shape.f; ++i) {
        y += w[j][i].item<double>() * s.hidden[t][i].item<double>();
      }
      loss += p.gamma * std::pow(y - s.y[t][j].item<double>(), 2);
    }
  }
  return loss;
}

double Loss(const State& s, const Penalties& p) {
  return DecoupledLoss(s.shape.activation, s.inner, s.fitted, s.hidden, s.low.down, s.y, p);
}

at::Tensor UpdatedHidden(const State& s, const Penalties& p) {
  const auto update = HiddenUpdate::Prepare(s.low.down, p);
  EXPECT_TRUE(update.ok()) << update.status();
  return (*update)(Activate(s.shape.activation, s.inner), s.y);
}

class MlpAuxiliaryTest : public testing::Test {
 protected:
  // Products are tiny.
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

TEST_F(MlpAuxiliaryTest, TheDecoupledLossIsThatOfItsDefinition) {
  for (const Activation activation : kActivations) {
    const State s = MakeState(activation, 10);
    for (const Penalties& p : kPenalties) {
      const double slow = SlowLoss(s, p);
      EXPECT_NEAR(Loss(s, p), slow, 1e-12 * slow);
    }
  }
}

// Oracle 11: Z' zeroes the gradient of L4, beta (Z' - sigma(Z)) + gamma W^T (W Z' + b - y), and is
// what the f x f inverse gives. Sizes are about 1, gamma up to 10, and the condition of the system
// is below 1e3.
TEST_F(MlpAuxiliaryTest, HiddenValuesZeroTheGradient) {
  for (const Activation activation : kActivations) {
    const State s = MakeState(activation, 20);
    const at::Tensor h = Activate(activation, s.inner);
    const at::Tensor w = DenseWeight(s.low.down);
    const at::Tensor y = s.y - s.low.down.bias;
    for (const Penalties& p : kPenalties) {
      const at::Tensor hidden = UpdatedHidden(s, p);
      const at::Tensor gradient =
          p.beta * (hidden - h) + p.gamma * at::matmul(at::matmul(hidden, w.t()) - y, w);
      EXPECT_LT(MaxAbs(gradient), 1e-11);
      const at::Tensor system =
          p.gamma * at::matmul(w.t(), w) + p.beta * at::eye(s.shape.f, at::kDouble);
      const at::Tensor target = p.beta * h + p.gamma * at::matmul(y, w);
      EXPECT_LT(MaxAbs(hidden - at::matmul(target, at::linalg_inv(system))), 1e-11);
    }
  }
}

// Oracle 11: ReLU's Z equals the least of a fine grid and all of its points of interest.
TEST_F(MlpAuxiliaryTest, ReluValuesAreTheGlobalMinimum) {
  const at::Tensor fitted = 2 * RandomMatrix(20, 20, 30);
  const at::Tensor hidden = 2 * RandomMatrix(20, 20, 31);
  constexpr double kStep = 1e-2;
  const at::Tensor grid = at::arange(-8, 8, kStep, at::kDouble).view({-1, 1, 1});
  for (const Penalties& p : kPenalties) {
    const auto loss = [&](const at::Tensor& z) {
      return p.alpha * (z - fitted).square() + p.beta * (hidden - at::relu(z)).square();
    };
    const at::Tensor found = loss(UpdatedReluValues(fitted, hidden, p));
    const at::Tensor least = std::get<0>(loss(grid).min(0));
    // No point of the grid is better, and the best one is within half a step of the minimum, where
    // the loss has a curvature of 2 (alpha + beta).
    EXPECT_LT((found - least).max().item<double>(), 1e-12);
    EXPECT_LT((least - found).max().item<double>(), (p.alpha + p.beta) * kStep * kStep);
  }
}

// Oracle 11: SwiGLU's Z is stationary; its loss is a parabola, so that it is the minimum.
TEST_F(MlpAuxiliaryTest, UpValuesAreStationary) {
  const State s = MakeState(Activation::kSwiGlu, 40);
  const at::Tensor factor = at::silu(s.inner.gate);
  for (const Penalties& p : kPenalties) {
    const at::Tensor z = UpdatedUpValues(s.fitted.up, s.inner.gate, s.hidden, p);
    const at::Tensor gradient =
        p.alpha * (z - s.fitted.up) - p.beta * factor * (s.hidden - factor * z);
    EXPECT_LT(MaxAbs(gradient), 1e-12);
  }
}

// Oracle 11: SwiGLU's S is stationary after enough steps, and no step raises the loss.
TEST_F(MlpAuxiliaryTest, GateValuesDescendToAStationaryPoint) {
  const State s = MakeState(Activation::kSwiGlu, 50);
  for (const Penalties& p : kPenalties) {
    const auto loss = [&](const at::Tensor& gate) {
      return p.alpha_gate * (gate - s.fitted.gate).square() +
             p.beta * (s.hidden - at::silu(gate) * s.inner.up).square();
    };
    const auto updated = [&](int64_t steps) {
      return UpdatedGateValues(s.inner.gate, s.fitted.gate, s.inner.up, s.hidden, p, steps);
    };
    at::Tensor before = loss(s.inner.gate);
    for (const int64_t steps : {1, 2, 3, 4}) {
      const at::Tensor after = loss(updated(steps));
      EXPECT_LE((after - before).max().item<double>(), 0) << "step " << steps;
      before = after;
    }
    const at::Tensor gate = updated(60);
    const at::Tensor slope = s.inner.up * SiluSlope(gate);
    const at::Tensor gradient = p.alpha_gate * (gate - s.fitted.gate) -
                                p.beta * slope * (s.hidden - at::silu(gate) * s.inner.up);
    // What a Newton step would still take off the loss is within the rounding of the loss, by which
    // steps are judged.
    const at::Tensor gain = gradient.square() / (p.alpha_gate + p.beta * slope.square());
    EXPECT_LT((gain / loss(gate)).max().item<double>(), 1e-14);
    // The four steps of a round come within a hundredth of it.
    EXPECT_LT((before - loss(gate)).sum().item<double>(), 1e-2 * loss(gate).sum().item<double>());
  }
}

// Oracle 11: L4 does not rise in any update.
TEST_F(MlpAuxiliaryTest, NoUpdateRaisesTheDecoupledLoss) {
  for (const Activation activation : kActivations) {
    for (const Penalties& p : kPenalties) {
      State s = MakeState(activation, 60);
      double loss = Loss(s, p);
      for (int round = 0; round < 4; ++round) {
        s.hidden = UpdatedHidden(s, p);
        const double after_hidden = Loss(s, p);
        EXPECT_LE(after_hidden, loss * (1 + 1e-13));
        s.inner = UpdatedInnerRows(activation, s.inner, s.fitted, s.hidden, p, 4);
        loss = Loss(s, p);
        EXPECT_LE(loss, after_hidden * (1 + 1e-13));
      }
    }
  }
}

TEST_F(MlpAuxiliaryTest, RefusesPenaltiesThatAreNotPositive) {
  EXPECT_TRUE(CheckPenalties({}).ok());
  EXPECT_EQ(CheckPenalties({.beta = 0}).message(),
            "penalty beta is 0, expected a finite number above 0");
  EXPECT_TRUE(absl::IsInvalidArgument(CheckPenalties({.alpha = -1})));
  EXPECT_TRUE(absl::IsInvalidArgument(CheckPenalties({.alpha_gate = std::nan("")})));
  EXPECT_TRUE(absl::IsInvalidArgument(CheckPenalties({.gamma = INFINITY})));
}

TEST_F(MlpAuxiliaryTest, AFactorThatIsNotFiniteIsAnError) {
  LowRank down = RandomLowRank(6, 15, 4, false, 70);
  down.down = down.down * INFINITY;
  EXPECT_TRUE(absl::IsInternal(HiddenUpdate::Prepare(down, {}).status()));
}

}  // namespace
}  // namespace latentforge::low_rank
