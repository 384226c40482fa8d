#include "worker/factorize/decomposition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/worker/factorize/reference.h"

namespace latentforge::factorize {
namespace {

constexpr Preconditioner kAll[] = {Preconditioner::kIdentity,   Preconditioner::kDiagonalL1,
                                   Preconditioner::kDiagonalL2, Preconditioner::kDiagonalHessian,
                                   Preconditioner::kCovariance, Preconditioner::kRootCovariance};

Decomposition Decompose(const Problem& p, const PreconditionerOptions& options) {
  auto result = Decomposition::Compute(p.weight, p.input, p.output, options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

at::Tensor Product(const Decomposition& d, int64_t rank, Gauge gauge = Gauge::kOrthonormal) {
  const auto factors = d.FactorsOf(rank, gauge);
  EXPECT_TRUE(factors.ok()) << factors.status();
  return at::matmul(factors->up, factors->down);
}

// Oracle 1: no other preconditioner has a smaller calibration loss; the loss is
// the tail of the spectrum of W C^(1/2); also where C is singular (n < d).
TEST(DecompositionTest, RootCovarianceIsOptimal) {
  for (const int64_t tokens : {200, 7}) {
    const Problem p = RandomProblem(8, 12, tokens, 10);
    const Decomposition best = Decompose(p, {.kind = Preconditioner::kRootCovariance});
    const at::Tensor singular =
        std::get<1>(at::linalg_svd(at::matmul(p.weight, SymmetricRoot(p.covariance)), false));
    const double scale = p.output.gram.trace().item<double>();
    for (int64_t rank = 1; rank <= 8; ++rank) {
      const double loss = Loss(p, Product(best, rank));
      // Both sides are fp64 sums of 8 x n terms; the root squares the rounding of C.
      EXPECT_NEAR(loss, singular.narrow(0, rank, 8 - rank).pow(2).sum().item<double>(),
                  1e-10 * scale);
      EXPECT_NEAR(loss, std::pow(best.RelativeError(rank), 2) * scale, 1e-10 * scale);
      for (const Preconditioner kind : kAll) {
        if (kind == Preconditioner::kDiagonalHessian && tokens < 12) continue;  // C has no inverse
        EXPECT_LE(loss, Loss(p, Product(Decompose(p, {.kind = kind}), rank)) + 1e-9 * scale)
            << PreconditionerName(kind) << " rank " << rank << " tokens " << tokens;
      }
    }
  }
}

// Oracle 2: C = diag(4, 1) by hand.
TEST(DecompositionTest, HandOracles) {
  // Two tokens whose second moment is diag(4, 1).
  const at::Tensor x = at::diag(at::tensor({std::sqrt(8.0), std::sqrt(2.0)}, at::kDouble));
  const Problem a = MakeProblem(at::diag(at::tensor({1.0, 3.0}, at::kDouble)), x);
  const Problem b = MakeProblem(at::diag(at::tensor({1.2, 2.0}, at::kDouble)), x);
  const auto loss = [](const Problem& p, Preconditioner kind) {
    return Loss(p, Product(Decompose(p, {.kind = kind}), 1));
  };
  for (const Preconditioner kind :
       {Preconditioner::kIdentity, Preconditioner::kDiagonalL2, Preconditioner::kDiagonalHessian,
        Preconditioner::kRootCovariance}) {
    EXPECT_NEAR(loss(a, kind), 4, 1e-12) << PreconditionerName(kind);
  }
  EXPECT_NEAR(loss(a, Preconditioner::kCovariance), 9, 1e-12);
  EXPECT_NEAR(loss(b, Preconditioner::kIdentity), 5.76, 1e-12);
  for (const Preconditioner kind : {Preconditioner::kDiagonalL2, Preconditioner::kDiagonalHessian,
                                    Preconditioner::kCovariance, Preconditioner::kRootCovariance}) {
    EXPECT_NEAR(loss(b, kind), 4, 1e-12) << PreconditionerName(kind);
  }
}

// Oracle 3: without any inverse the result is svd_r(W P) P^+ for every P, and
// for the root also the one by Cholesky's factor.
TEST(DecompositionTest, InversionFreeEqualsTheDefinition) {
  const Problem p = RandomProblem(8, 12, 300, 11);
  for (const Preconditioner kind : kAll) {
    const PreconditionerOptions options{.kind = kind, .damping = 1e-2};
    const Decomposition d = Decompose(p, options);
    const at::Tensor matrix = PreconditionerMatrix(p, options);
    for (const int64_t rank : {1, 3, 5, 8}) {
      const at::Tensor product = Product(d, rank);
      // P's condition number is below 1e4 here, so fp64 leaves eleven digits or more.
      EXPECT_LT(MaxAbs(product - TruncatedByDefinition(p.weight, matrix, rank)), 1e-9)
          << PreconditionerName(kind) << " rank " << rank;
      if (kind == Preconditioner::kRootCovariance) {
        const at::Tensor cholesky = at::linalg_cholesky(DampedCovariance(p, options.damping));
        EXPECT_LT(MaxAbs(product - TruncatedByDefinition(p.weight, cholesky, rank)), 1e-9);
      }
    }
  }
}

TEST(DecompositionTest, DampingIsReportedOnUndampedMoments) {
  const Problem p = RandomProblem(6, 10, 80, 12);
  const Decomposition damped = Decompose(p, {.damping = 0.1});
  const double scale = p.output.gram.trace().item<double>();
  for (int64_t rank = 1; rank <= 6; ++rank) {
    EXPECT_NEAR(std::pow(damped.RelativeError(rank), 2), Loss(p, Product(damped, rank)) / scale,
                1e-12);
  }
  EXPECT_EQ(damped.RelativeError(6), 0);
  EXPECT_DOUBLE_EQ(damped.RelativeError(0), 1);
}

TEST(DecompositionTest, UnitRmsGaugeKeepsTheProduct) {
  const Problem p = RandomProblem(6, 10, 80, 13);
  const Decomposition d = Decompose(p, {});
  const auto factors = d.FactorsOf(4, Gauge::kUnitRms);
  ASSERT_TRUE(factors.ok()) << factors.status();
  EXPECT_LT(MaxAbs(at::matmul(factors->up, factors->down) - Product(d, 4)), 1e-12);
  const at::Tensor rms = at::matmul(factors->down, p.x).pow(2).mean(1).sqrt();
  EXPECT_LT(MaxAbs(rms - 1), 1e-10);
}

TEST(DecompositionTest, UnitRmsGaugeSurvivesSilentLatents) {
  // Outputs of rank 2 in 5 dimensions: three latents are zero on every token.
  const Problem p = MakeProblem(at::matmul(RandomMatrix(5, 2, 14), RandomMatrix(2, 7, 15)),
                                RandomMatrix(7, 40, 16));
  const Decomposition d = Decompose(p, {});
  const auto factors = d.FactorsOf(5, Gauge::kUnitRms);
  ASSERT_TRUE(factors.ok()) << factors.status();
  EXPECT_TRUE(at::isfinite(factors->down).all().item<bool>());
  EXPECT_LT(MaxAbs(at::matmul(factors->up, factors->down) - p.weight), 1e-8);
}

TEST(DecompositionTest, SpectrumIsDescendingAndRanksAreChecked) {
  const Problem p = RandomProblem(6, 10, 80, 17);
  const Decomposition d = Decompose(p, {});
  EXPECT_TRUE(std::is_sorted(d.spectrum().rbegin(), d.spectrum().rend()));
  const auto spectrum = OutputSpectrum(p.output.gram);
  ASSERT_TRUE(spectrum.ok()) << spectrum.status();
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_NEAR((*spectrum)[i], d.spectrum()[i], 1e-10 * d.spectrum()[0]);
  }
  for (const int64_t rank : {-1, 0, 7}) {
    const auto factors = d.FactorsOf(rank, Gauge::kUnitRms);
    EXPECT_EQ(factors.status().code(), absl::StatusCode::kOutOfRange);
    EXPECT_NE(factors.status().message().find(std::to_string(rank)), absl::string_view::npos);
  }
}

}  // namespace
}  // namespace latentforge::factorize
