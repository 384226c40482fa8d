#include "worker/factorize/loss_decomposition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/worker/factorize/loss_reference.h"

namespace latentforge::factorize {
namespace {

constexpr LatentPart kParts[] = {LatentPart::kJoint, LatentPart::kKey, LatentPart::kValue};

LossDecomposition Decompose(const LossProblem& p, LatentPart part,
                            const LossMetricOptions& options = {}) {
  auto result = LossDecomposition::Compute(p.weight, p.statistics, part, options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

at::Tensor Product(const LossDecomposition& d, int64_t rank, Gauge gauge = Gauge::kOrthonormal) {
  const auto factors = d.FactorsOf(rank, gauge);
  EXPECT_TRUE(factors.ok()) << factors.status();
  return at::matmul(factors->up, factors->down);
}

// The predicted loss is 1/2 tr(G dW C dW^T) of the factors, computed from G and the
// D x D covariance, and equals that of the minimiser found by symmetric roots and SVD.
TEST(LossDecompositionTest, ReachesTheMinimumAndPredictsIt) {
  const LossProblem p = RandomLossProblem(5, 14, 20);
  for (const LatentPart part : kParts) {
    for (const double ridge : {0.0, 1e-3}) {
      const LossMetricOptions options{.sink_weight = 0.125, .ridge = ridge};
      const LossDecomposition d = Decompose(p, part, options);
      ASSERT_EQ(d.width(), WidthOf(p, part));
      const at::Tensor weight = RowsOf(p, part);
      const at::Tensor fisher = RidgedFisher(p, part, ridge);
      const at::Tensor covariance = MixedCovariance(p, options.sink_weight);
      const double all = ExpectedLoss(fisher, covariance, weight);
      // Roots and inverses multiply the rounding of fp64 (1e-16) by at most the
      // condition numbers of G and C, together below 1e4 each here; both sides are relative
      // to the loss of dropping everything.
      const double tolerance = 1e-10 * all;
      EXPECT_NEAR(d.PredictedLoss(0), all, tolerance);
      for (int64_t rank = 1; rank <= d.width(); ++rank) {
        const double direct = ExpectedLoss(fisher, covariance, weight - Product(d, rank));
        const double least =
            ExpectedLoss(fisher, covariance, weight - BestOfRank(weight, fisher, covariance, rank));
        EXPECT_NEAR(d.PredictedLoss(rank), direct, tolerance) << "rank " << rank;
        EXPECT_NEAR(d.PredictedLoss(rank), least, tolerance) << "rank " << rank;
      }
    }
  }
}

// A = U_r^T M W and B = M^-1 U_r with the symmetric root M, up to the signs of eigenvectors.
TEST(LossDecompositionTest, FactorsAreThoseOfTheSymmetricRoot) {
  const LossProblem p = RandomLossProblem(5, 14, 25);
  for (const LatentPart part : kParts) {
    const at::Tensor weight = RowsOf(p, part);
    const at::Tensor root = SymmetricRoot(RidgedFisher(p, part, 1e-3));
    const at::Tensor output = at::matmul(at::matmul(weight, MixedCovariance(p, 0.125)), weight.t());
    const auto [values, vectors] = at::linalg_eigh(at::matmul(at::matmul(root, output), root));
    const at::Tensor basis = vectors.flip({1}).narrow(1, 0, 4);
    const at::Tensor down = at::matmul(at::matmul(basis.t(), root), weight);
    const at::Tensor up = at::matmul(at::linalg_inv(root), basis);
    const auto factors = Decompose(p, part).FactorsOf(4, Gauge::kOrthonormal);
    ASSERT_TRUE(factors.ok()) << factors.status();
    const at::Tensor signs = (factors->up * up).sum(0).sign();
    // Rounding of 1e-16 over the smallest relative gap of eigenvalues (above 1e-4) times the
    // condition number of M (below 1e3).
    EXPECT_LT(MaxAbs(factors->up * signs - up), 1e-8 * MaxAbs(up));
    EXPECT_LT(MaxAbs(factors->down * signs.unsqueeze(1) - down), 1e-8 * MaxAbs(down));
  }
}

// Gradients in 3 of 10 directions and no ridge: G has no Cholesky factor, and three latents lose
// nothing.
TEST(LossDecompositionTest, SingularFisherWithoutRidge) {
  const LossProblem sample = RandomLossProblem(5, 14, 26);
  const LossProblem p = MakeLossProblem(
      sample.weight, sample.x, at::matmul(RandomMatrix(10, 3, 27), RandomMatrix(3, 400, 28)), 20);
  const LossDecomposition d = Decompose(p, LatentPart::kJoint, {.sink_weight = 0.125, .ridge = 0});
  const at::Tensor covariance = MixedCovariance(p, 0.125);
  const double all = ExpectedLoss(p.statistics.fisher, covariance, p.weight);
  for (int64_t rank = 1; rank <= 10; ++rank) {
    // Eigenvalues floored at 1e-12 of the largest, outputs of all directions within 1e4.
    EXPECT_NEAR(ExpectedLoss(p.statistics.fisher, covariance, p.weight - Product(d, rank)),
                d.PredictedLoss(rank), 1e-8 * all)
        << "rank " << rank;
  }
  EXPECT_GT(d.PredictedLoss(2), 1e-3 * all);
  EXPECT_LT(d.PredictedLoss(3), 1e-8 * all);
}

TEST(LossDecompositionTest, NoRandomStepImprovesIt) {
  const LossProblem p = RandomLossProblem(4, 10, 30);
  const LossMetricOptions options;
  const LossDecomposition d = Decompose(p, LatentPart::kJoint, options);
  const at::Tensor fisher = RidgedFisher(p, LatentPart::kJoint, options.ridge);
  const at::Tensor covariance = MixedCovariance(p, options.sink_weight);
  const auto factors = d.FactorsOf(3, Gauge::kUnitRms);
  ASSERT_TRUE(factors.ok()) << factors.status();
  for (uint64_t step = 0; step < 50; ++step) {
    const double size = std::pow(10.0, -double(step % 5));
    const at::Tensor up = factors->up + size * RandomMatrix(8, 3, 100 + 2 * step);
    const at::Tensor down = factors->down + size * RandomMatrix(3, 10, 101 + 2 * step);
    EXPECT_GE(ExpectedLoss(fisher, covariance, p.weight - at::matmul(up, down)),
              d.PredictedLoss(3));
  }
}

TEST(LossDecompositionTest, FullRankIsExact) {
  const LossProblem p = RandomLossProblem(5, 14, 40);
  for (const LatentPart part : kParts) {
    const LossDecomposition d = Decompose(p, part);
    EXPECT_EQ(d.PredictedLoss(d.width()), 0);
    EXPECT_EQ(d.PredictedLoss(d.width() + 1), 0);
    for (const Gauge gauge : {Gauge::kOrthonormal, Gauge::kUnitRms}) {
      // M^-1 M = I to 1e-16 times M's condition number (below 1e3), weights of size 10.
      EXPECT_LT(MaxAbs(Product(d, d.width(), gauge) - RowsOf(p, part)), 1e-11);
    }
  }
}

// Separate latents are the joint ones with a block-diagonal up-projection; with a
// block-diagonal G and the same number of values, a shared latent cannot lose more.
TEST(LossDecompositionTest, JointLosesAtMostWhatSeparateLatentsLose) {
  LossProblem p = RandomLossProblem(5, 14, 50);
  p.statistics.fisher.narrow(0, 0, 5).narrow(1, 5, 5).zero_();
  p.statistics.fisher.narrow(0, 5, 5).narrow(1, 0, 5).zero_();
  const LossDecomposition joint = Decompose(p, LatentPart::kJoint);
  const LossDecomposition key = Decompose(p, LatentPart::kKey);
  const LossDecomposition value = Decompose(p, LatentPart::kValue);
  const double all = joint.PredictedLoss(0);
  EXPECT_NEAR(all, key.PredictedLoss(0) + value.PredictedLoss(0), 1e-12 * all);
  bool strictly = false;
  for (int64_t k = 0; k <= 5; ++k) {
    for (int64_t v = 0; v <= 5; ++v) {
      const double separate = key.PredictedLoss(k) + value.PredictedLoss(v);
      EXPECT_LE(joint.PredictedLoss(k + v), separate + 1e-12 * all) << k << " + " << v;
      strictly = strictly || joint.PredictedLoss(k + v) < 0.9 * separate;
    }
  }
  EXPECT_TRUE(strictly);
}

// alpha = 0 and G = I are the existing root-covariance, without damping.
TEST(LossDecompositionTest, WithoutFisherAndSinkItIsRootCovariance) {
  const LossProblem p = RandomLossProblem(6, 13, 60);
  for (const LatentPart part : kParts) {
    const Problem reference = MakeProblem(RowsOf(p, part), p.x);
    const auto expected =
        Decomposition::Compute(reference.weight, reference.input, reference.output,
                               {.kind = Preconditioner::kRootCovariance, .damping = 0, .alpha = 0});
    ASSERT_TRUE(expected.ok()) << expected.status();
    const LossDecomposition d =
        Decompose(p, part, {.sink_weight = 0, .ridge = 1e-3, .fisher = false});
    for (int64_t rank = 1; rank <= d.width(); ++rank) {
      // Rounding of the moments (1e-16) over the smallest gap between eigenvalues (above
      // 1e-4 of the largest here), times weights of size 10.
      const auto factors = expected->FactorsOf(rank, Gauge::kUnitRms);
      ASSERT_TRUE(factors.ok()) << factors.status();
      EXPECT_LT(MaxAbs(Product(d, rank, Gauge::kUnitRms) - at::matmul(factors->up, factors->down)),
                1e-9)
          << "rank " << rank;
      EXPECT_NEAR(d.spectrum()[rank - 1], expected->spectrum()[rank - 1],
                  1e-12 * expected->spectrum()[0]);
      if (part == LatentPart::kKey) {
        EXPECT_NEAR(d.RelativeKeyError(rank), expected->RelativeError(rank), 1e-7);
      }
    }
  }
}

// Where keys shrink and their gradients grow by the same factor (and values the
// reverse), nothing changes: the metric has no preferred unit.
TEST(LossDecompositionTest, FollowsTheScalesOfKeysAndValues) {
  const LossProblem p = RandomLossProblem(5, 14, 70);
  const at::Tensor scale =
      at::cat({at::full({5}, 1.0 / 16, at::kDouble), at::full({5}, 32.0, at::kDouble)});
  LossProblem scaled = p;
  const at::Tensor outputs = scale.unsqueeze(1) * scale;
  scaled.weight = p.weight * scale.unsqueeze(1);
  scaled.statistics.output = p.statistics.output * outputs;
  scaled.statistics.output_first = p.statistics.output_first * outputs;
  scaled.statistics.fisher = p.statistics.fisher / outputs;
  scaled.statistics.fisher_first = p.statistics.fisher_first / outputs;
  const LossDecomposition d = Decompose(p, LatentPart::kJoint);
  const LossDecomposition e = Decompose(scaled, LatentPart::kJoint);
  for (int64_t rank = 1; rank <= 10; ++rank) {
    // The scaled G has a condition number of up to 1e9, whose root enters.
    EXPECT_NEAR(d.PredictedLoss(rank), e.PredictedLoss(rank), 1e-10 * d.PredictedLoss(0));
    EXPECT_LT(MaxAbs(Product(d, rank) - Product(e, rank) / scale.unsqueeze(1)), 1e-8);
    EXPECT_NEAR(d.RelativeKeyError(rank), e.RelativeKeyError(rank), 1e-8);
    EXPECT_NEAR(d.RelativeValueError(rank), e.RelativeValueError(rank), 1e-8);
  }
}

TEST(LossDecompositionTest, FollowsAPermutationOfChannels) {
  const LossProblem p = RandomLossProblem(5, 14, 80);
  // Channels only move within keys and within values, as heads do.
  const at::Tensor order = at::tensor({3, 0, 4, 1, 2, 9, 5, 7, 8, 6}, at::kLong);
  const auto both = [&](const at::Tensor& t) {
    return t.index_select(0, order).index_select(1, order);
  };
  LossProblem moved = p;
  moved.weight = p.weight.index_select(0, order);
  moved.statistics.output = both(p.statistics.output);
  moved.statistics.output_first = both(p.statistics.output_first);
  moved.statistics.fisher = both(p.statistics.fisher);
  moved.statistics.fisher_first = both(p.statistics.fisher_first);
  for (const LatentPart part : kParts) {
    const LossDecomposition d = Decompose(p, part);
    const LossDecomposition e = Decompose(moved, part);
    const at::Tensor within =
        order.narrow(0, StartOf(p, part), WidthOf(p, part)) - StartOf(p, part);
    for (const int64_t rank : {1, 3, 5}) {
      // As above: rounding over the smallest gap of eigenvalues.
      EXPECT_NEAR(d.PredictedLoss(rank), e.PredictedLoss(rank), 1e-12 * d.PredictedLoss(0));
      EXPECT_LT(MaxAbs(Product(d, rank).index_select(0, within) - Product(e, rank)), 1e-9);
    }
  }
}

TEST(LossDecompositionTest, ErrorsOfKeysAndValuesAreThoseOfTheTokens) {
  const LossProblem p = RandomLossProblem(5, 14, 90);
  const auto direct = [&](const at::Tensor& weight, const at::Tensor& approximation) {
    const double lost = at::matmul(weight - approximation, p.x).pow(2).sum().item<double>();
    return std::sqrt(lost / at::matmul(weight, p.x).pow(2).sum().item<double>());
  };
  const at::Tensor keys = RowsOf(p, LatentPart::kKey);
  const at::Tensor values = RowsOf(p, LatentPart::kValue);
  const LossDecomposition joint = Decompose(p, LatentPart::kJoint);
  const LossDecomposition key = Decompose(p, LatentPart::kKey);
  const LossDecomposition value = Decompose(p, LatentPart::kValue);
  for (int64_t rank = 1; rank < 10; ++rank) {
    const at::Tensor product = Product(joint, rank);
    // Squares of 1e-8 and more, to 1e-16 times the condition of M.
    EXPECT_NEAR(joint.RelativeKeyError(rank), direct(keys, product.narrow(0, 0, 5)), 1e-9);
    EXPECT_NEAR(joint.RelativeValueError(rank), direct(values, product.narrow(0, 5, 5)), 1e-9);
    if (rank >= 5) continue;
    EXPECT_NEAR(key.RelativeKeyError(rank), direct(keys, Product(key, rank)), 1e-9);
    EXPECT_NEAR(value.RelativeValueError(rank), direct(values, Product(value, rank)), 1e-9);
    EXPECT_EQ(key.RelativeValueError(rank), 0);
    EXPECT_EQ(value.RelativeKeyError(rank), 0);
  }
  EXPECT_NEAR(joint.RelativeKeyError(0), 1, 1e-12);
  EXPECT_EQ(joint.RelativeKeyError(10), 0);
  EXPECT_EQ(joint.RelativeValueError(99), 0);
}

TEST(LossDecompositionTest, UnitRmsGaugeKeepsTheProduct) {
  const LossProblem p = RandomLossProblem(5, 14, 100);
  for (const LatentPart part : kParts) {
    const LossDecomposition d = Decompose(p, part);
    const auto factors = d.FactorsOf(4, Gauge::kUnitRms);
    ASSERT_TRUE(factors.ok()) << factors.status();
    EXPECT_EQ(factors->down.sizes(), at::IntArrayRef({4, 14}));
    EXPECT_EQ(factors->up.sizes(), at::IntArrayRef({WidthOf(p, part), 4}));
    EXPECT_LT(MaxAbs(at::matmul(factors->up, factors->down) - Product(d, 4)), 1e-11);
    const at::Tensor rms = at::matmul(factors->down, p.x).pow(2).mean(1).sqrt();
    EXPECT_LT(MaxAbs(rms - 1), 1e-9);
  }
}

TEST(LossDecompositionTest, SpectrumIsDescendingAndRanksAreChecked) {
  const LossDecomposition d = Decompose(RandomLossProblem(5, 14, 110), LatentPart::kJoint);
  EXPECT_TRUE(std::is_sorted(d.spectrum().rbegin(), d.spectrum().rend()));
  EXPECT_GE(d.spectrum().back(), 0);
  for (const int64_t rank : {-1, 0, 11}) {
    const auto factors = d.FactorsOf(rank, Gauge::kUnitRms);
    EXPECT_EQ(factors.status().code(), absl::StatusCode::kOutOfRange);
    EXPECT_NE(factors.status().message().find(std::to_string(rank)), absl::string_view::npos);
  }
}

// Both find eigenvalues of one matrix, each to a few roundings (1e-16) of the largest.
TEST(LossDecompositionTest, SpectrumAloneIsTheSame) {
  LossProblem silent = RandomLossProblem(4, 10, 112);
  silent.statistics.fisher.zero_();
  for (const LossProblem& p : {RandomLossProblem(5, 14, 111), silent}) {
    for (const LatentPart part : kParts) {
      for (const bool fisher : {true, false}) {
        const LossMetricOptions options{.fisher = fisher};
        const std::vector<double> expected = Decompose(p, part, options).spectrum();
        const auto spectrum = LossSpectrum(p.statistics, part, options);
        ASSERT_TRUE(spectrum.ok()) << spectrum.status();
        ASSERT_EQ(spectrum->size(), expected.size());
        for (size_t i = 0; i < expected.size(); ++i) {
          EXPECT_NEAR((*spectrum)[i], expected[i], 1e-13 * expected[0]);
        }
      }
    }
  }
  EXPECT_FALSE(LossSpectrum({}, LatentPart::kJoint, {}).ok());
  EXPECT_FALSE(LossSpectrum(silent.statistics, LatentPart::kKey, {.sink_weight = 2}).ok());
}

TEST(LossDecompositionTest, IsDeterministic) {
  const LossProblem p = RandomLossProblem(5, 14, 120);
  const LossDecomposition first = Decompose(p, LatentPart::kJoint);
  const LossDecomposition second = Decompose(p, LatentPart::kJoint);
  EXPECT_EQ(first.spectrum(), second.spectrum());
  const auto a = first.FactorsOf(4, Gauge::kUnitRms);
  const auto b = second.FactorsOf(4, Gauge::kUnitRms);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_TRUE(at::equal(a->down, b->down));
  EXPECT_TRUE(at::equal(a->up, b->up));
}

// Layers without any effect on the loss, projections of zeros, and fewer calibration
// tokens than channels.
TEST(LossDecompositionTest, SurvivesDegenerateLayers) {
  LossProblem no_effect = RandomLossProblem(4, 10, 130);
  no_effect.statistics.fisher.zero_();
  LossProblem keys_without_effect = RandomLossProblem(4, 10, 131);
  keys_without_effect.statistics.fisher.narrow(0, 0, 4).zero_();
  keys_without_effect.statistics.fisher.narrow(1, 0, 4).zero_();
  LossProblem zeros = RandomLossProblem(4, 10, 132);
  zeros = MakeLossProblem(at::zeros_like(zeros.weight), zeros.x, RandomMatrix(8, 400, 133), 20);
  const LossProblem few = MakeLossProblem(RandomMatrix(8, 10, 134), RandomMatrix(10, 3, 135),
                                          RandomMatrix(8, 3, 136), 1);
  for (const LossProblem& p : {no_effect, keys_without_effect, zeros, few}) {
    for (const LatentPart part : kParts) {
      const LossDecomposition d = Decompose(p, part);
      for (int64_t rank = 1; rank <= d.width(); ++rank) {
        EXPECT_TRUE(at::isfinite(Product(d, rank, Gauge::kUnitRms)).all().item<bool>());
        EXPECT_TRUE(std::isfinite(d.PredictedLoss(rank)));
        EXPECT_TRUE(std::isfinite(d.RelativeKeyError(rank)));
      }
      // The floor of eigenvalues lets M's condition number rise to 1e6.
      EXPECT_LT(MaxAbs(Product(d, d.width(), Gauge::kUnitRms) - RowsOf(p, part)), 1e-8);
    }
  }
  const LossDecomposition silent = Decompose(no_effect, LatentPart::kJoint);
  EXPECT_EQ(silent.PredictedLoss(0), 0);
  // Still a sensible basis: that of the outputs.
  EXPECT_LT(silent.RelativeKeyError(7), 0.1);
  EXPECT_EQ(Decompose(zeros, LatentPart::kKey).RelativeKeyError(1), 0);
}

TEST(LossDecompositionTest, RefusesBadOptionsAndWeights) {
  const LossProblem p = RandomLossProblem(3, 8, 140);
  const auto status = [&](const at::Tensor& weight, const LossMetricOptions& options) {
    return LossDecomposition::Compute(weight, p.statistics, LatentPart::kJoint, options).status();
  };
  for (const double alpha : {-0.1, 1.1, std::nan("")}) {
    const absl::Status bad = status(p.weight, {.sink_weight = alpha});
    EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(bad.message().find("sink weight is"), absl::string_view::npos);
  }
  EXPECT_TRUE(status(p.weight, {.sink_weight = 1}).ok());
  for (const double ridge : {-1e-9, std::nan(""), HUGE_VAL}) {
    EXPECT_EQ(status(p.weight, {.ridge = ridge}).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(status(at::Tensor(), {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status(p.weight.to(at::kFloat), {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status(p.weight.narrow(0, 0, 5), {}).code(), absl::StatusCode::kInvalidArgument);
  const absl::Status narrow = status(p.weight.narrow(0, 0, 4), {});
  EXPECT_EQ(narrow.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(narrow.message().find("shape [6, 6]"), absl::string_view::npos);
  at::Tensor infinite = p.weight.clone();
  infinite[1][1] = HUGE_VAL;
  EXPECT_EQ(status(infinite, {}).code(), absl::StatusCode::kInternal);
}

TEST(LossDecompositionTest, OverflowIsANumericalFailure) {
  LossProblem p = RandomLossProblem(3, 8, 150);
  p.statistics.output *= 1e200;
  p.statistics.fisher *= 1e200;
  const auto result = LossDecomposition::Compute(p.weight, p.statistics, LatentPart::kJoint, {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
  EXPECT_NE(result.status().message().find("not finite"), absl::string_view::npos);
}

}  // namespace
}  // namespace latentforge::factorize
