#include "worker/factorize/preconditioner.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/worker/factorize/reference.h"

namespace latentforge::factorize {
namespace {

constexpr Preconditioner kAll[] = {Preconditioner::kIdentity,   Preconditioner::kDiagonalL1,
                                   Preconditioner::kDiagonalL2, Preconditioner::kDiagonalHessian,
                                   Preconditioner::kCovariance, Preconditioner::kRootCovariance};

TEST(PreconditionerTest, NamesRoundTrip) {
  for (const Preconditioner kind : kAll) {
    EXPECT_EQ(PreconditionerFromName(PreconditionerName(kind)), kind);
  }
  EXPECT_EQ(PreconditionerFromName("svd"), std::nullopt);
}

// Oracle 3, second half, for every preconditioner: the Gram that needs no root
// of C equals W P P^T W^T with P formed as a matrix.
TEST(PreconditionerTest, GramEqualsTheDefinition) {
  const Problem p = RandomProblem(8, 12, 200, 1);
  for (const Preconditioner kind : kAll) {
    for (const double damping : {0.0, 1e-3, 0.1}) {
      const PreconditionerOptions options{.kind = kind, .damping = damping, .alpha = 0.7};
      const auto gram = MetricGram(p.weight, p.input, p.output, options);
      ASSERT_TRUE(gram.ok()) << gram.status();
      const at::Tensor wp = at::matmul(p.weight, PreconditionerMatrix(p, options));
      const at::Tensor expected = at::matmul(wp, wp.t());
      // fp64 rounding (1e-16) times the condition number of C, up to 1e6, in the Hessian's
      // inverse, summed over 12 channels.
      EXPECT_LT(MaxAbs(*gram - expected), 1e-9 * MaxAbs(expected))
          << PreconditionerName(kind) << " damping " << damping;
    }
  }
}

TEST(PreconditionerTest, NamesWhatIsMissingOrWrong) {
  Problem p = RandomProblem(4, 6, 50, 2);
  const auto message = [&](const PreconditionerOptions& options) {
    const auto gram = MetricGram(p.weight, p.input, p.output, options);
    EXPECT_EQ(gram.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(gram.status().message());
  };
  EXPECT_NE(message({.damping = -1}).find("damping is -1"), std::string::npos);
  EXPECT_NE(message({.alpha = std::numeric_limits<double>::quiet_NaN()}).find("alpha is nan"),
            std::string::npos);
  p.output.cross = at::Tensor();
  EXPECT_NE(message({.kind = Preconditioner::kCovariance}).find("lack cross"), std::string::npos);
  p.input.covariance = at::Tensor();
  EXPECT_NE(message({.kind = Preconditioner::kDiagonalHessian}).find("lack covariance"),
            std::string::npos);
  p.output.gram = p.output.gram.narrow(0, 0, 3);
  EXPECT_NE(message({}).find("gram has shape [3, 4]"), std::string::npos);
}

TEST(PreconditionerTest, NonFiniteStatisticsAreANumericalFailure) {
  Problem p = RandomProblem(4, 6, 50, 3);
  p.output.gram[1][2] = std::numeric_limits<double>::infinity();
  const auto gram = MetricGram(p.weight, p.input, p.output, {});
  EXPECT_EQ(gram.status().code(), absl::StatusCode::kInternal);
  EXPECT_NE(gram.status().message().find("not finite"), absl::string_view::npos);
}

TEST(PreconditionerTest, HessianOfSingularCovarianceAsksForDamping) {
  const Problem p = RandomProblem(4, 8, 3, 4);
  const PreconditionerOptions undamped{.kind = Preconditioner::kDiagonalHessian, .damping = 0};
  // A singular C may pass Cholesky by rounding; -1 * eps makes it certainly indefinite.
  InputStatistics input = p.input;
  input.covariance = p.covariance - 1e-12 * at::eye(8, at::kDouble);
  const auto gram = MetricGram(p.weight, input, p.output, undamped);
  EXPECT_EQ(gram.status().code(), absl::StatusCode::kInternal);
  EXPECT_NE(gram.status().message().find("raise damping"), absl::string_view::npos);
  EXPECT_TRUE(MetricGram(p.weight, input, p.output,
                         {.kind = Preconditioner::kDiagonalHessian, .damping = 1e-3})
                  .ok());
}

}  // namespace
}  // namespace latentforge::factorize
