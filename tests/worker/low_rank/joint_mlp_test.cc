#include "worker/low_rank/joint_mlp.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/worker/low_rank/mlp_reference.h"

namespace latentforge::low_rank {
namespace {

class JointMlpTest : public testing::Test {
 protected:
  // Products are tiny.
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

constexpr Activation kActivations[] = {Activation::kRelu, Activation::kSwiGlu};
constexpr MlpRanks kRanks{.up = 5, .gate = 4, .down = 5};

MlpCompression Compress(const MlpProblem& p, const JointMlpOptions& options,
                        const MlpRanks& ranks = kRanks) {
  auto result = CompressMlpJointly(p.mlp, ranks, p.tokens(), options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

double MaxDifference(const LowRankMlp& a, const LowRankMlp& b) {
  double most = std::max(MaxAbs(DenseWeight(a.up) - DenseWeight(b.up)),
                         MaxAbs(DenseWeight(a.down) - DenseWeight(b.down)));
  if (a.up.bias.defined()) most = std::max(most, MaxAbs(a.up.bias - b.up.bias));
  if (a.down.bias.defined()) most = std::max(most, MaxAbs(a.down.bias - b.down.bias));
  if (a.activation == Activation::kSwiGlu) {
    most = std::max(most, MaxAbs(DenseWeight(a.gate) - DenseWeight(b.gate)));
  }
  return most;
}

// The alternation on all tokens at once: whole matrices of auxiliary values, and the f x f inverse.
class SlowAlternation {
 public:
  SlowAlternation(const MlpProblem& p, const JointMlpOptions& options, LowRankMlp start)
      : p_(p), options_(options), mlp_(std::move(start)) {
    inner_ = InnerRowsOf(p.mlp, p.original);
    hidden_ = Activate(p.mlp.activation, inner_);
    y_ = RowsOf(p.mlp.down, hidden_);
  }

  const LowRankMlp& mlp() const { return mlp_; }

  // L4 after each of its sub-steps: Z', Z and S, up, gate, down.
  std::vector<double> Round() {
    const Activation activation = p_.mlp.activation;
    const Penalties& a = options_.penalties;
    std::vector<double> losses;
    const at::Tensor w = DenseWeight(mlp_.down);
    const at::Tensor system =
        a.gamma * at::matmul(w.t(), w) + a.beta * at::eye(w.size(1), w.options());
    const at::Tensor y = mlp_.down.bias.defined() ? y_ - mlp_.down.bias : y_;
    hidden_ = at::matmul(a.beta * Activate(activation, inner_) + a.gamma * at::matmul(y, w),
                         at::linalg_inv(system));
    losses.push_back(Loss());
    inner_ = UpdatedInnerRows(activation, inner_, InnerRowsOf(mlp_, p_.seen()), hidden_, a,
                              options_.gate_steps);
    losses.push_back(Loss());
    mlp_.up = Fit(p_.mlp.up, p_.seen(), inner_.up, kRanks.up);
    losses.push_back(Loss());
    if (activation == Activation::kSwiGlu) {
      mlp_.gate = Fit(p_.mlp.gate, p_.seen(), inner_.gate, kRanks.gate);
      losses.push_back(Loss());
    }
    mlp_.down = Fit(p_.mlp.down, hidden_, y_, kRanks.down);
    losses.push_back(Loss());
    return losses;
  }

 private:
  LowRank Fit(const Linear& map, const at::Tensor& x, const at::Tensor& t, int64_t rank) const {
    RegressionSums sums(t.size(1), x.size(1), x);
    sums.Add(x, t);
    const auto regression = FitMap(map, std::move(sums).TakeMoments(), options_.fit);
    EXPECT_TRUE(regression.ok()) << regression.status();
    return *regression->At(rank);
  }

  double Loss() const {
    return DecoupledLoss(p_.mlp.activation, inner_, InnerRowsOf(mlp_, p_.seen()), hidden_,
                         mlp_.down, y_, options_.penalties);
  }

  const MlpProblem& p_;
  const JointMlpOptions& options_;
  LowRankMlp mlp_;
  InnerRows inner_;
  at::Tensor hidden_;
  at::Tensor y_;
};

// Oracle 11: without damping every sub-step is exact, and none raises L4. All along the rounds, the
// state with `down` refitted has the loss that the compression reports, and the best is returned.
TEST_F(JointMlpTest, FollowsTheAlternationOnAllTokensAndNeverRaisesTheDecoupledLoss) {
  for (const Activation activation : kActivations) {
    for (const bool biases : {false, true}) {
      const MlpProblem p =
          MakeMlpProblem({.activation = activation, .biases = biases, .drifted = true}, 10);
      const JointMlpOptions options{.fit = {.damping = 0},
                                    .penalties = {.alpha = 0.5, .beta = 2},
                                    .rounds = 3,
                                    .tolerance = 0};
      const MlpCompression result = Compress(p, options);
      ASSERT_EQ(result.losses.size(), 4);
      JointMlpOptions at_start = options;
      at_start.rounds = 0;
      const MlpCompression start = Compress(p, at_start);
      EXPECT_EQ(start.losses, std::vector<double>{result.losses[0]});

      SlowAlternation slow(p, options, start.mlp);
      LowRankMlp best = start.mlp;
      double least = start.error.loss;
      double decoupled = std::numeric_limits<double>::infinity();
      for (int round = 1; round <= 3; ++round) {
        for (const double loss : slow.Round()) {
          EXPECT_LE(loss, decoupled * (1 + 1e-12)) << "round " << round;
          decoupled = loss;
        }
        const auto refit = RefitDown(p.mlp, slow.mlp(), kRanks.down, p.tokens(), options.fit);
        ASSERT_TRUE(refit.ok());
        // The rounding of three rounds of regressions with conditions of up to 1e4.
        EXPECT_NEAR(result.losses[round], refit->error.loss, 1e-9 * result.error.power);
        if (refit->error.loss >= least) continue;
        least = refit->error.loss;
        best = refit->mlp;
      }
      EXPECT_LT(MaxDifference(result.mlp, best), 1e-7);
    }
  }
}

TEST_F(JointMlpTest, TheErrorIsThatOfTheTokensAndTheLeastOfAllStates) {
  for (const Activation activation : kActivations) {
    for (const double beta : {0.1, 10.0}) {
      const MlpProblem p = MakeMlpProblem({.activation = activation}, 20);
      const MlpCompression result =
          Compress(p, {.penalties = {.beta = beta}, .rounds = 6, .tolerance = 0});
      const auto error = MeasureMlp(p.mlp, result.mlp, p.tokens());
      ASSERT_TRUE(error.ok());
      EXPECT_NEAR(result.error.loss, error->loss, 1e-11 * error->power);
      EXPECT_NEAR(result.error.power, error->power, 1e-12 * error->power);
      EXPECT_EQ(result.error.loss, *std::min_element(result.losses.begin(), result.losses.end()));
      EXPECT_EQ(result.mlp.up.rank(), kRanks.up);
      EXPECT_EQ(result.mlp.down.rank(), kRanks.down);
    }
  }
}

// The same values, but for the rounding of other chunks of memory.
TEST_F(JointMlpTest, ReplayedValuesAreThoseKept) {
  for (const Activation activation : kActivations) {
    const MlpProblem p = MakeMlpProblem({.activation = activation, .drifted = true}, 30);
    JointMlpOptions options{.rounds = 3, .tolerance = 0};
    const MlpCompression replayed = Compress(p, options);
    options.keep_values = true;
    const MlpCompression kept = Compress(p, options);
    EXPECT_LT(MaxDifference(replayed.mlp, kept.mlp), 1e-12);
    ASSERT_EQ(replayed.losses.size(), kept.losses.size());
    for (size_t i = 0; i < kept.losses.size(); ++i) {
      EXPECT_NEAR(replayed.losses[i], kept.losses[i], 1e-13 * kept.error.power);
    }
  }
}

// Sums do not depend on how the tokens are cut.
TEST_F(JointMlpTest, ChunksDoNotMatter) {
  MlpProblem p = MakeMlpProblem({}, 40);
  const MlpCompression some = Compress(p, {.rounds = 2});
  p.chunk_tokens = 100;
  EXPECT_LT(MaxDifference(some.mlp, Compress(p, {.rounds = 2}).mlp), 1e-9);
}

TEST_F(JointMlpTest, StopsWhenTheDecoupledLossNoLongerFalls) {
  const MlpProblem p = MakeMlpProblem({}, 50);
  // The first round has nothing to compare with; the second falls by less than nearly all.
  EXPECT_EQ(Compress(p, {.rounds = 9, .tolerance = 0.99}).losses.size(), 3);
  EXPECT_EQ(Compress(p, {.rounds = 9, .tolerance = 0}).losses.size(), 10);
}

// Fewer tokens than channels: every covariance is singular, and enough rank loses nothing.
TEST_F(JointMlpTest, FewTokensAreReachedExactly) {
  for (const Activation activation : kActivations) {
    for (const double damping : {0.0, 1e-3}) {
      const MlpProblem p = MakeMlpProblem({.activation = activation, .n = 5}, 60);
      const MlpCompression result =
          Compress(p, {.fit = {.damping = damping}, .rounds = 2, .tolerance = 0});
      if (damping == 0) {
        EXPECT_LT(result.error.loss, 1e-12 * result.error.power);
      }
      EXPECT_LT(result.error.relative(), 0.1);
    }
  }
}

TEST_F(JointMlpTest, FullRanksLoseNothing) {
  const MlpProblem p = MakeMlpProblem({.activation = Activation::kSwiGlu}, 70);
  const MlpCompression result = Compress(p, {.rounds = 0}, {.up = 8, .gate = 8, .down = 8});
  EXPECT_LT(result.error.relative(), 1e-7);
  EXPECT_LT(MaxAbs(DenseWeight(result.mlp.up) - p.mlp.up.weight), 1e-10);
  EXPECT_LT(MaxAbs(DenseWeight(result.mlp.down) - p.mlp.down.weight), 1e-9);
}

TEST_F(JointMlpTest, RefusesWrongArguments) {
  const MlpProblem p = MakeMlpProblem({}, 80);
  const auto refusal = [&](const JointMlpOptions& options, const MlpRanks& ranks = kRanks) {
    return CompressMlpJointly(p.mlp, ranks, p.tokens(), options).status();
  };
  EXPECT_TRUE(absl::IsInvalidArgument(refusal({.fit = {.damping = -1}})));
  EXPECT_TRUE(absl::IsInvalidArgument(refusal({.penalties = {.alpha = 0}})));
  EXPECT_EQ(refusal({.gate_steps = 0}).message(), "gate steps is 0, expected at least 1");
  EXPECT_EQ(refusal({.rounds = -1}).message(), "rounds is -1, expected at least 0");
  EXPECT_EQ(refusal({.tolerance = 1}).message(),
            "tolerance is 1, expected at least 0 and less than 1");
  EXPECT_TRUE(absl::IsInvalidArgument(refusal({.tolerance = std::nan("")})));
  EXPECT_TRUE(absl::IsInvalidArgument(refusal({}, {.up = 9, .gate = 1, .down = 1})));
  Mlp broken = p.mlp;
  broken.up.weight = at::Tensor();
  EXPECT_TRUE(absl::IsInvalidArgument(CompressMlpJointly(broken, kRanks, p.tokens(), {}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(CompressMlpJointly(p.mlp, kRanks, {}, {}).status()));
}

}  // namespace
}  // namespace latentforge::low_rank
