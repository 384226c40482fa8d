#include "worker/low_rank/local_decomposition.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "tests/worker/factorize/loss_reference.h"
#include "tests/worker/factorize/reference.h"
#include "tests/worker/low_rank/local_reference.h"
#include "worker/factorize/decomposition.h"

namespace latentforge::low_rank {
namespace {

using factorize::MakeProblem;
using factorize::MaxAbs;
using factorize::Preconditioner;
using factorize::PreconditionerMatrix;
using factorize::PreconditionerName;
using factorize::Problem;
using factorize::RandomMatrix;
using factorize::RandomProblem;
using factorize::SecondMoment;
using factorize::SymmetricRoot;
using factorize::TruncatedByDefinition;

constexpr Preconditioner kAll[] = {Preconditioner::kIdentity,   Preconditioner::kDiagonalL1,
                                   Preconditioner::kDiagonalL2, Preconditioner::kDiagonalHessian,
                                   Preconditioner::kCovariance, Preconditioner::kRootCovariance};
// [out, in] of each shape: fewer, as many and more outputs than inputs.
constexpr std::pair<int64_t, int64_t> kShapes[] = {{8, 12}, {10, 10}, {14, 9}};

LocalDecomposition Decompose(const Problem& p, const LocalOptions& options,
                             const at::Tensor& metric = {}, const at::Tensor& bias = {}) {
  auto result = LocalDecomposition::Compute({.weight = p.weight, .bias = bias}, MomentsOf(p),
                                            options, metric);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

LowRank At(const LocalDecomposition& d, int64_t rank) {
  const auto low = d.At(rank);
  EXPECT_TRUE(low.ok()) << low.status();
  return *low;
}

at::Tensor ProductAt(const LocalDecomposition& d, int64_t rank) { return Product(At(d, rank)); }

// E|R^T (W x + b - W' x - b')|^2 from the tokens themselves.
double MeasuredLoss(const Problem& p, const at::Tensor& bias, const LowRank& low,
                    const at::Tensor& metric) {
  at::Tensor error = at::matmul(p.weight - Product(low), p.x);
  if (bias.defined()) error = error + bias.unsqueeze(1);
  if (low.bias.defined()) error = error - low.bias.unsqueeze(1);
  const at::Tensor weighted = metric.defined() ? at::matmul(metric, error) : error;
  return (weighted * error).sum().item<double>() / double(p.x.size(1));
}

// Oracle 1: no preconditioner has a smaller calibration loss, which is the tail of the squared
// singular values of W C^(1/2); also where C is singular (fewer tokens than channels).
TEST(LocalDecompositionTest, RootCovarianceIsOptimal) {
  for (const auto& [out, in] : kShapes) {
    for (const int64_t tokens : {200, 7}) {
      const Problem p = RandomProblem(out, in, tokens, 10);
      const LocalDecomposition best = Decompose(p, {.damping = 0});
      const at::Tensor singular =
          std::get<1>(at::linalg_svd(at::matmul(p.weight, SymmetricRoot(p.covariance)), false));
      const double scale = best.Loss(0);
      ASSERT_EQ(best.width(), std::min(out, in));
      for (int64_t rank = 1; rank <= best.width(); ++rank) {
        const double tail = singular.slice(0, rank).square().sum().item<double>();
        // Sums of 14 x 200 terms in fp64; the root squares the rounding of C.
        EXPECT_NEAR(factorize::Loss(p, ProductAt(best, rank)), tail, 1e-10 * scale) << rank;
        EXPECT_NEAR(best.Loss(rank), tail, 1e-10 * scale) << rank;
        EXPECT_NEAR(best.SingularValues()[rank - 1], singular[rank - 1].item<double>(),
                    1e-7 * std::sqrt(scale));
      }
      for (const Preconditioner kind : kAll) {
        const LocalDecomposition other = Decompose(p, {.preconditioner = kind, .damping = 1e-6});
        for (int64_t rank = 1; rank <= best.width(); ++rank) {
          EXPECT_LE(best.Loss(rank), factorize::Loss(p, ProductAt(other, rank)) + 1e-9 * scale)
              << PreconditionerName(kind) << " rank " << rank << " tokens " << tokens;
        }
      }
    }
  }
}

// Oracle 2: C = diag(4, 1) by hand. Rank 1 keeps one of the two channels: of W = diag(1, 3) the
// losses are 4 (first dropped) and 9, of W = diag(1.2, 2) 5.76 and 4.
TEST(LocalDecompositionTest, HandOracles) {
  // Two tokens whose second moment is diag(4, 1), and E|x| = (sqrt 2, sqrt 0.5).
  const at::Tensor x = at::diag(at::tensor({std::sqrt(8.0), std::sqrt(2.0)}, at::kDouble));
  const Problem a = MakeProblem(at::diag(at::tensor({1.0, 3.0}, at::kDouble)), x);
  const Problem b = MakeProblem(at::diag(at::tensor({1.2, 2.0}, at::kDouble)), x);
  const auto loss = [](const Problem& p, Preconditioner kind, bool literal = false) {
    const LocalOptions options{
        .preconditioner = kind, .literal_hessian = literal, .alpha = 1, .damping = 0};
    const LocalDecomposition d = Decompose(p, options);
    EXPECT_NEAR(d.Loss(1), factorize::Loss(p, ProductAt(d, 1)), 1e-12);
    return d.Loss(1);
  };
  for (const Preconditioner kind : kAll) {
    const bool covariance = kind == Preconditioner::kCovariance;
    const bool plain = kind == Preconditioner::kIdentity;
    EXPECT_NEAR(loss(a, kind), covariance ? 9 : 4, 1e-12) << PreconditionerName(kind);
    EXPECT_NEAR(loss(b, kind), plain ? 5.76 : 4, 1e-12) << PreconditionerName(kind);
  }
  EXPECT_NEAR(loss(a, Preconditioner::kDiagonalHessian, true), 4, 1e-12);
  EXPECT_NEAR(loss(b, Preconditioner::kDiagonalHessian, true), 5.76, 1e-12);
}

// Oracle 3: svd_r[W P] P^+ as the slides write it, for every P formed as a matrix.
TEST(LocalDecompositionTest, EveryPreconditionerMatchesItsDefinition) {
  for (const auto& [out, in] : kShapes) {
    const Problem p = RandomProblem(out, in, 300, 11);
    for (const Preconditioner kind : kAll) {
      const at::Tensor matrix =
          PreconditionerMatrix(p, {.kind = kind, .damping = 1e-2, .alpha = 0.7});
      const LocalDecomposition d =
          Decompose(p, {.preconditioner = kind, .alpha = 0.7, .damping = 1e-2});
      const at::Tensor singular = std::get<1>(at::linalg_svd(at::matmul(p.weight, matrix), false));
      for (int64_t rank = 1; rank <= d.width(); ++rank) {
        const at::Tensor expected = TruncatedByDefinition(p.weight, matrix, rank);
        // Rounding (1e-16) times the condition number of W P P^T W^T, at most 1e6 here, over the
        // relative gaps of its eigenvalues, at least 1e-2.
        EXPECT_LT(MaxAbs(ProductAt(d, rank) - expected), 1e-8 * MaxAbs(expected))
            << PreconditionerName(kind) << " " << out << " x " << in << " rank " << rank;
        EXPECT_NEAR(d.spectrum()[rank - 1], singular[rank - 1].square().item<double>(),
                    1e-12 * d.spectrum()[0]);
      }
    }
  }
}

// Oracle 3: any P with P P^T = C gives the same, such as SVD-LLM's factor of Cholesky; and for few
// outputs the decomposition of a projection of keys or values says it too.
TEST(LocalDecompositionTest, AgreesWithCholeskyAndWithTheKeysDecomposition) {
  const Problem p = RandomProblem(8, 12, 300, 12);
  const LocalDecomposition d = Decompose(p, {.damping = 0});
  const auto keys = factorize::Decomposition::Compute(p.weight, p.input, p.output, {});
  ASSERT_TRUE(keys.ok()) << keys.status();
  const at::Tensor factor = at::linalg_cholesky(p.covariance);
  for (int64_t rank = 1; rank <= 8; ++rank) {
    const auto key = keys->FactorsOf(rank, factorize::Gauge::kOrthonormal);
    ASSERT_TRUE(key.ok());
    const at::Tensor product = ProductAt(d, rank);
    // As above.
    EXPECT_LT(MaxAbs(product - TruncatedByDefinition(p.weight, factor, rank)),
              1e-8 * MaxAbs(product));
    EXPECT_LT(MaxAbs(product - at::matmul(key->up, key->down)), 1e-8 * MaxAbs(product));
  }
}

// The literal exponent of the slides' table, as a matrix.
TEST(LocalDecompositionTest, LiteralHessianMatchesItsDefinition) {
  for (const auto& [out, in] : kShapes) {
    const Problem p = RandomProblem(out, in, 300, 13);
    const LocalOptions options{.preconditioner = Preconditioner::kDiagonalHessian,
                               .literal_hessian = true,
                               .damping = 1e-2};
    const at::Tensor inverse = at::linalg_inv(factorize::DampedCovariance(p, options.damping));
    const at::Tensor expected =
        TruncatedByDefinition(p.weight, at::diag(inverse.diagonal().sqrt()), 4);
    EXPECT_LT(MaxAbs(ProductAt(Decompose(p, options), 4) - expected), 1e-8 * MaxAbs(expected));
  }
}

// A covariance of condition 1e10: singular values of W C down to 1e-10 of the first, which a Gram
// in fp64 does not hold. The directions kept must still be those of the largest singular values.
TEST(LocalDecompositionTest, CovarianceKeepsQuietDirectionsApart) {
  for (const auto& [out, in] : kShapes) {
    const auto [q, r] = at::linalg_qr(RandomMatrix(in, in, 14));
    const at::Tensor x = q * at::logspace(0, -5, in, 10, at::kDouble) * std::sqrt(double(in));
    const Problem p = MakeProblem(RandomMatrix(out, in, 15), x);
    const LocalOptions options{.preconditioner = Preconditioner::kCovariance, .damping = 0};
    const LocalDecomposition d = Decompose(p, options);
    const auto [u, s, v] = at::linalg_svd(at::matmul(p.weight, p.covariance), false);
    for (int64_t rank = 1; rank <= d.width(); ++rank) {
      const at::Tensor kept = u.narrow(1, 0, rank);
      const double expected = factorize::Loss(p, at::matmul(kept, at::matmul(kept.t(), p.weight)));
      // Singular vectors are found to eps over the relative gap, at least 1e-10: 1e-6.
      EXPECT_NEAR(d.Loss(rank), expected, 1e-4 * expected + 1e-14 * d.Loss(0))
          << out << " x " << in << " rank " << rank;
    }
  }
}

// The slides' row of covariance collapses: single precision and an inverse of C do that. Without an
// inverse the preconditioner comes near the optimum, on outputs of condition 1e10 too.
TEST(LocalDecompositionTest, CovarianceDoesNotCollapseWithoutAnInverse) {
  const int64_t n = 48;
  const auto [q, r] = at::linalg_qr(RandomMatrix(n, n, 37));
  const Problem p = MakeProblem(RandomMatrix(n, n, 38),
                                q * at::logspace(0, -5, n, 10, at::kDouble) * std::sqrt(double(n)));
  const LocalDecomposition root = Decompose(p, {.damping = 0});
  const LocalDecomposition covariance =
      Decompose(p, {.preconditioner = Preconditioner::kCovariance, .damping = 0});
  const at::Tensor single = p.covariance.to(at::kFloat);
  for (const int64_t rank : {12, 24, 36}) {
    const auto [u, s, v] = at::linalg_svd(at::matmul(p.weight.to(at::kFloat), single), false);
    const at::Tensor truncated =
        at::matmul(u.narrow(1, 0, rank) * s.narrow(0, 0, rank), v.narrow(0, 0, rank));
    const at::Tensor inverted = at::matmul(truncated, at::linalg_inv(single)).to(at::kDouble);
    EXPECT_LT(covariance.Loss(rank), 1.2 * root.Loss(rank)) << rank;
    EXPECT_GT(factorize::Loss(p, inverted), root.Loss(0)) << rank;  // worse than no map at all
  }
}

// The least of tr(G D C D^T) by Eckart and Young, with symmetric roots and their inverses.
TEST(LocalDecompositionTest, AMetricGivesTheLeastWeightedLoss) {
  for (const auto& [out, in] : kShapes) {
    const Problem p = RandomProblem(out, in, 300, 16);
    const at::Tensor full = SecondMoment(RandomMatrix(out, 3 * out, 17));
    const at::Tensor diagonal = full.diagonal() * at::logspace(0, -2, out, 10, at::kDouble);
    for (const bool matrix : {true, false}) {
      const at::Tensor g = matrix ? full : at::diag(diagonal);
      const LocalDecomposition d = Decompose(p, {.damping = 0}, matrix ? full : diagonal);
      for (int64_t rank = 1; rank <= d.width(); ++rank) {
        const at::Tensor best = factorize::BestOfRank(p.weight, g, p.covariance, rank);
        // Condition numbers of the roots, 1e3 each, times the inverse gaps, 1e2.
        EXPECT_LT(MaxAbs(ProductAt(d, rank) - best), 1e-8 * MaxAbs(best)) << rank;
        EXPECT_NEAR(d.Loss(rank), MeasuredLoss(p, {}, At(d, rank), g), 1e-11 * d.Loss(0)) << rank;
      }
    }
  }
}

// A metric that sees three directions: three latents lose nothing of what it sees, and what it
// does not see is the regression of the outputs on them.
TEST(LocalDecompositionTest, ASingularMetricLeavesTheRestToRegression) {
  for (const auto& [out, in] : kShapes) {
    const Problem p = RandomProblem(out, in, 300, 18);
    const at::Tensor g = SecondMoment(RandomMatrix(out, 3, 19));
    const LocalDecomposition d = Decompose(p, {.damping = 0}, g);
    const LowRank low = At(d, 3);
    // Unseen directions count 1e-12.
    EXPECT_LT(MeasuredLoss(p, {}, low, g), 1e-10 * d.Loss(0));
    const at::Tensor latents = at::matmul(low.down, p.x);
    const at::Tensor regression = at::matmul(at::matmul(p.weight, at::matmul(p.x, latents.t())),
                                             at::linalg_inv(SecondMoment(latents)));
    // The factor 1e6 between the metric's roots, times rounding and the condition of the latents.
    EXPECT_LT(MaxAbs(low.up - regression / double(p.x.size(1))), 1e-6 * MaxAbs(low.up));
  }
}

// Oracle 5: with C0 and the new bias the mean error is 0, and no other choice loses less.
TEST(LocalDecompositionTest, CentredWithANewBiasIsBest) {
  for (const auto& [out, in] : kShapes) {
    Problem p = RandomProblem(out, in, 300, 20);
    p = MakeProblem(p.weight, p.x + 2 * RandomMatrix(in, 1, 21));
    const at::Tensor bias = RandomMatrix(out, 1, 22).squeeze(1);
    for (int64_t rank = 1; rank < std::min(out, in); ++rank) {
      const auto loss = [&](bool centred, bool update) {
        const LocalDecomposition d =
            Decompose(p, {.damping = 0, .centred = centred, .update_bias = update}, {}, bias);
        const double measured = MeasuredLoss(p, bias, At(d, rank), {});
        EXPECT_NEAR(d.Loss(rank), measured, 1e-11 * d.Loss(0));
        return measured;
      };
      const double best = loss(true, true);
      const LowRank low =
          At(Decompose(p, {.damping = 0, .centred = true, .update_bias = true}, {}, bias), rank);
      const at::Tensor mean_error = at::matmul(p.weight - Product(low), p.x.mean(1)) + bias;
      EXPECT_LT(MaxAbs(mean_error - low.bias), 1e-12 * MaxAbs(p.weight) * in * MaxAbs(p.x));
      const at::Tensor c0 = p.covariance - at::outer(p.x.mean(1), p.x.mean(1));
      const at::Tensor singular =
          std::get<1>(at::linalg_svd(at::matmul(p.weight, SymmetricRoot(c0)), false));
      EXPECT_NEAR(best, singular.slice(0, rank).square().sum().item<double>(), 1e-9 * best);
      EXPECT_LE(best, loss(false, true));
      EXPECT_LE(loss(false, true), loss(false, false));
      EXPECT_LE(loss(false, false), loss(true, false));
    }
  }
}

// Loss() against the tokens, whatever P, damping, centring, bias and metric.
TEST(LocalDecompositionTest, TheLossIsThatOfTheTokens) {
  const Problem centre = RandomProblem(14, 9, 100, 23);
  const Problem p = MakeProblem(centre.weight, centre.x + RandomMatrix(9, 1, 24));
  const at::Tensor metric = SecondMoment(RandomMatrix(14, 20, 25));
  for (const Preconditioner kind : kAll) {
    for (const bool centred : {false, true}) {
      for (const bool update : {false, true}) {
        const LocalDecomposition d = Decompose(
            p, {.preconditioner = kind, .damping = 1e-2, .centred = centred, .update_bias = update},
            metric);
        for (const int64_t rank : {1, 4, 9}) {
          EXPECT_NEAR(d.Loss(rank), MeasuredLoss(p, {}, At(d, rank), metric), 1e-11 * d.Loss(0))
              << PreconditionerName(kind) << centred << update << " rank " << rank;
        }
      }
    }
  }
}

// Centring means the statistics of x - mean: the same W' as from tokens without a mean.
TEST(LocalDecompositionTest, CentringIsThatOfTheTokens) {
  for (const auto& [out, in] : kShapes) {
    const Problem shifted = RandomProblem(out, in, 200, 26);
    const Problem p = MakeProblem(shifted.weight, shifted.x + 1);
    const Problem zero = MakeProblem(p.weight, p.x - p.x.mean(1, true));
    for (const Preconditioner kind : kAll) {
      if (kind == Preconditioner::kDiagonalL1) continue;  // knows no centred moment
      const LocalOptions plain{.preconditioner = kind};
      const LocalOptions centred{.preconditioner = kind, .centred = true};
      const at::Tensor expected = ProductAt(Decompose(zero, plain), 5);
      // C0 loses digits to the mean, |mean|^2 over its least eigenvalue: 1e4 here.
      EXPECT_LT(MaxAbs(ProductAt(Decompose(p, centred), 5) - expected), 1e-8 * MaxAbs(expected))
          << PreconditionerName(kind);
    }
  }
}

TEST(LocalDecompositionTest, FullWidthIsExactAlsoWithFewTokens) {
  for (const auto& [out, in] : kShapes) {
    const Problem p = RandomProblem(out, in, 4, 27);
    for (const Preconditioner kind : kAll) {
      const LocalDecomposition d = Decompose(p, {.preconditioner = kind});
      EXPECT_LT(MaxAbs(ProductAt(d, d.width()) - p.weight), 1e-13 * MaxAbs(p.weight));
      EXPECT_EQ(d.Loss(d.width()), 0);
    }
  }
}

TEST(LocalDecompositionTest, UpIsOrthonormalWithFixedSigns) {
  for (const auto& [out, in] : kShapes) {
    const LowRank low = At(Decompose(RandomProblem(out, in, 100, 28), {}), 6);
    EXPECT_LT(MaxAbs(at::matmul(low.up.t(), low.up) - at::eye(6, at::kDouble)), 1e-14);
    const at::Tensor largest = low.up.gather(0, low.up.abs().argmax(0, true));
    EXPECT_TRUE((largest > 0).all().item<bool>());
  }
}

// A wide input's diagonals and the outputs' Gram say the same as its covariance.
TEST(LocalDecompositionTest, TheOutputsGramStandsInForTheCovariance) {
  const Problem centre = RandomProblem(7, 24, 60, 29);
  const Problem p = MakeProblem(centre.weight, centre.x + 0.5);
  const at::Tensor bias = RandomMatrix(7, 1, 30).squeeze(1);
  const at::Tensor metric = SecondMoment(RandomMatrix(7, 20, 31));
  for (const Preconditioner kind : {Preconditioner::kIdentity, Preconditioner::kDiagonalL1,
                                    Preconditioner::kDiagonalL2, Preconditioner::kRootCovariance}) {
    for (const bool centred : {false, true}) {
      const LocalOptions options{
          .preconditioner = kind, .centred = centred, .update_bias = centred};
      const auto wide = LocalDecomposition::Compute({.weight = p.weight, .bias = bias},
                                                    WideMomentsOf(p), options, metric);
      ASSERT_TRUE(wide.ok()) << wide.status();
      const LocalDecomposition full = Decompose(p, options, metric, bias);
      EXPECT_LT(MaxAbs(ProductAt(*wide, 3) - ProductAt(full, 3)), 1e-10);
      EXPECT_LT(MaxAbs(At(*wide, 3).bias - At(full, 3).bias), 1e-10);
      EXPECT_NEAR(wide->Loss(3), full.Loss(3), 1e-12 * full.Loss(0));
    }
  }
}

std::string Refusal(const Linear& linear, const InputMoments& moments, const LocalOptions& options,
                    const at::Tensor& metric = {},
                    absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
  const auto result = LocalDecomposition::Compute(linear, moments, options, metric);
  EXPECT_EQ(result.status().code(), code) << result.status();
  return std::string(result.status().message());
}

TEST(LocalDecompositionTest, RefusesWrongArguments) {
  const Problem p = RandomProblem(4, 6, 50, 32);
  const InputMoments moments = MomentsOf(p);
  const Linear linear{.weight = p.weight};
  EXPECT_NE(Refusal({}, moments, {}).find("weight is not"), std::string::npos);
  EXPECT_NE(Refusal({.weight = p.weight, .bias = p.x}, moments, {}).find("bias has shape [6, 50]"),
            std::string::npos);
  EXPECT_NE(Refusal(linear, {}, {}).find("lack mean"), std::string::npos);
  EXPECT_NE(Refusal(linear, {.mean = moments.mean}, {}).find("lack covariance"), std::string::npos);
  EXPECT_NE(Refusal(linear, moments, {.damping = -1}).find("damping is -1"), std::string::npos);
  EXPECT_NE(Refusal(linear, moments, {.alpha = std::nan("")}).find("alpha is nan"),
            std::string::npos);
  EXPECT_NE(Refusal(linear, {.mean = moments.mean, .covariance = moments.covariance},
                    {.preconditioner = Preconditioner::kDiagonalL1})
                .find("lack mean_abs"),
            std::string::npos);
  EXPECT_NE(Refusal(linear, moments, {}, at::ones({5}, at::kDouble)).find("metric has shape [5]"),
            std::string::npos);
  EXPECT_NE(Refusal(linear, moments, {}, at::zeros({4}, at::kDouble)).find("metric has eigenvalue"),
            std::string::npos);
  EXPECT_NE(Refusal(linear, moments, {}, at::tensor({1.0, -1.0, 1.0, 1.0}, at::kDouble))
                .find("eigenvalues from -1 to 1"),
            std::string::npos);
  const LocalDecomposition d = Decompose(p, {});
  EXPECT_TRUE(absl::IsOutOfRange(d.At(0).status()));
  EXPECT_EQ(d.At(5).status().message(), "rank is 5, expected 1 to the map's width 4");
}

TEST(LocalDecompositionTest, RefusesWhatWideMomentsDoNotTell) {
  const Problem tall = RandomProblem(9, 6, 50, 33);
  const auto refused =
      LocalDecomposition::Compute({.weight = tall.weight}, WideMomentsOf(tall), {});
  EXPECT_TRUE(absl::IsInvalidArgument(refused.status()));
  EXPECT_NE(refused.status().message().find("map is [9, 6]"), absl::string_view::npos);
  const Problem p = RandomProblem(4, 6, 50, 34);
  for (const Preconditioner kind :
       {Preconditioner::kCovariance, Preconditioner::kDiagonalHessian}) {
    for (const bool literal : {false, true}) {
      const LocalOptions options{.preconditioner = kind, .literal_hessian = literal};
      const auto wide =
          LocalDecomposition::Compute({.weight = p.weight}, WideMomentsOf(p), options);
      EXPECT_TRUE(absl::IsInvalidArgument(wide.status())) << wide.status();
    }
  }
}

TEST(LocalDecompositionTest, WhatIsNotFiniteIsANumericalFailure) {
  const Problem p = RandomProblem(4, 6, 50, 35);
  const double infinity = std::numeric_limits<double>::infinity();
  const auto refused = [&](const Linear& linear, const InputMoments& moments, const char* name,
                           const at::Tensor& metric = {}) {
    EXPECT_NE(Refusal(linear, moments, {}, metric, absl::StatusCode::kInternal).find(name),
              std::string::npos);
  };
  InputMoments moments = MomentsOf(p);
  refused({.weight = p.weight * infinity}, moments, "weight is not finite");
  refused({.weight = p.weight}, moments, "metric is not finite",
          at::full({4}, infinity, at::kDouble));
  moments.mean = moments.mean * infinity;
  refused({.weight = p.weight}, moments, "mean is not finite");
  moments = MomentsOf(p);
  moments.covariance = moments.covariance * infinity;
  refused({.weight = p.weight}, moments, "covariance is not finite");
  // Finite moments whose products are not.
  moments.covariance = at::full({6, 6}, 1e300, at::kDouble);
  refused({.weight = p.weight * 1e200}, moments, "is not finite");
}

TEST(LocalDecompositionTest, HessianOfASingularCovarianceAsksForDamping) {
  const Problem p = RandomProblem(4, 8, 3, 36);
  InputMoments moments = MomentsOf(p);
  // A singular C may pass Cholesky by rounding; this one is certainly indefinite.
  moments.covariance = moments.covariance - 1e-12 * at::eye(8, at::kDouble);
  for (const bool literal : {false, true}) {
    LocalOptions options{.preconditioner = Preconditioner::kDiagonalHessian,
                         .literal_hessian = literal,
                         .damping = 0};
    EXPECT_NE(Refusal({.weight = p.weight}, moments, options, {}, absl::StatusCode::kInternal)
                  .find("raise damping"),
              std::string::npos);
    options.damping = 1e-3;
    EXPECT_TRUE(LocalDecomposition::Compute({.weight = p.weight}, moments, options).ok());
  }
}

}  // namespace
}  // namespace latentforge::low_rank
