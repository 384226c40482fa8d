#include "worker/low_rank/mlp_fit.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "tests/worker/low_rank/mlp_reference.h"

namespace latentforge::low_rank {
namespace {

class MlpFitTest : public testing::Test {
 protected:
  // Products are tiny.
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

constexpr Activation kActivations[] = {Activation::kRelu, Activation::kSwiGlu};

StreamMoments Streams(const MlpProblem& p) {
  const auto streams = StreamMomentsOf(p.mlp, p.tokens());
  EXPECT_TRUE(streams.ok()) << streams.status();
  return *streams;
}

double Loss(const MlpProblem& p, const LowRankMlp& mlp) {
  const auto error = MeasureMlp(p.mlp, mlp, p.tokens());
  EXPECT_TRUE(error.ok()) << error.status();
  return error->loss;
}

// svd_r(W P) P^+ with P the root of the damped, centred covariance, and the bias that keeps the
// mean: root-covariance compression by its definition.
TEST_F(MlpFitTest, AnInnerMapAloneIsTheRootCovarianceDecomposition) {
  for (const bool biases : {false, true}) {
    const MlpProblem p = MakeMlpProblem({.biases = biases}, 10);
    const at::Tensor x = biases ? p.original - p.original.mean(0) : p.original;
    at::Tensor c = at::matmul(x.t(), x) / 100.0;
    c.diagonal().add_(1e-2 * c.diagonal().mean());
    const at::Tensor best =
        factorize::TruncatedByDefinition(p.mlp.up.weight, factorize::SymmetricRoot(c), 3);
    const auto map = FitInnerMap(p.mlp.up, Streams(p), 3, {.damping = 1e-2});
    ASSERT_TRUE(map.ok()) << map.status();
    // C has a condition of 100, and the gap behind the third eigenvalue is above 1e-2.
    EXPECT_LT(MaxAbs(DenseWeight(*map) - best), 1e-11);
    ASSERT_EQ(map->bias.defined(), biases);
    if (!biases) continue;
    // Oracle 5: the mean of the outputs is kept.
    const at::Tensor lost = RowsOf(p.mlp.up, p.original) - RowsOf(*map, p.original);
    EXPECT_LT(MaxAbs(lost.mean(0)), 1e-13);
  }
}

// Behind compressed layers the fit predicts the original's values better than a compression that
// knows only its own inputs.
TEST_F(MlpFitTest, AnInnerMapMakesUpForDriftedInputs) {
  const MlpProblem p = MakeMlpProblem({.drifted = true}, 20);
  MlpProblem alone = p;
  alone.original = p.compressed;
  const auto fitted = FitInnerMap(p.mlp.up, Streams(p), 5, {.damping = 0});
  const auto local = FitInnerMap(p.mlp.up, Streams(alone), 5, {.damping = 0});
  ASSERT_TRUE(fitted.ok() && local.ok());
  const at::Tensor values = RowsOf(p.mlp.up, p.original);
  const auto loss = [&](const LowRank& map) {
    return (values - RowsOf(map, p.compressed)).square().sum().item<double>();
  };
  EXPECT_LT(loss(*fitted), 0.99 * loss(*local));
}

// Oracle 11: whatever `down` was fitted to, refitted to the real activations it loses no more at
// equal rank; and the loss in closed form is that of the tokens.
TEST_F(MlpFitTest, ARefitOfDownNeverLosesMore) {
  for (const Activation activation : kActivations) {
    for (const bool biases : {false, true}) {
      const MlpShape shape{.activation = activation, .biases = biases, .drifted = true};
      const MlpProblem p = MakeMlpProblem(shape, 30);
      LowRankMlp mlp = RandomLowRankMlp(shape, 5, 40);
      const auto refit = RefitDown(p.mlp, mlp, 4, p.tokens(), {.damping = 0});
      ASSERT_TRUE(refit.ok()) << refit.status();
      EXPECT_EQ(refit->mlp.down.rank(), 4);
      EXPECT_EQ(refit->mlp.down.bias.defined(), biases);
      const auto error = MeasureMlp(p.mlp, refit->mlp, p.tokens());
      ASSERT_TRUE(error.ok());
      EXPECT_NEAR(refit->error.loss, error->loss, 1e-11 * error->power);
      EXPECT_NEAR(refit->error.power, error->power, 1e-12 * error->power);

      // `down` alone, on the original's activations; neighbours; and a random one.
      const at::Tensor h = Activate(activation, InnerRowsOf(p.mlp, p.original));
      RegressionSums sums(shape.d, shape.f, h);
      sums.Add(h, OutputRowsOf(p.mlp, p.original));
      const auto local = FitMap(p.mlp.down, std::move(sums).TakeMoments(), {});
      ASSERT_TRUE(local.ok());
      mlp.down = *local->At(4);
      EXPECT_GT(Loss(p, mlp), refit->error.loss);
      mlp.down = RandomLowRank(shape.d, shape.f, 4, biases, 50);
      EXPECT_GT(Loss(p, mlp), refit->error.loss);
      for (uint64_t seed = 60; seed < 70; ++seed) {
        mlp.down = refit->mlp.down;
        mlp.down.down = mlp.down.down + 1e-3 * RandomMatrix(4, shape.f, seed);
        EXPECT_GT(Loss(p, mlp), refit->error.loss);
      }
    }
  }
}

// A bias for maps that have none helps where inputs have a mean.
TEST_F(MlpFitTest, BiasesAreAddedWhereAskedFor) {
  const MlpShape shape{.biases = false};
  const MlpProblem p = MakeMlpProblem(shape, 80);
  const LowRankMlp mlp = RandomLowRankMlp(shape, 5, 90);
  const auto without = RefitDown(p.mlp, mlp, 2, p.tokens(), {.damping = 0});
  const auto with = RefitDown(p.mlp, mlp, 2, p.tokens(), {.damping = 0, .add_biases = true});
  ASSERT_TRUE(without.ok() && with.ok());
  EXPECT_FALSE(without->mlp.down.bias.defined());
  EXPECT_TRUE(with->mlp.down.bias.defined());
  EXPECT_LT(with->error.loss, without->error.loss);
}

}  // namespace
}  // namespace latentforge::low_rank
