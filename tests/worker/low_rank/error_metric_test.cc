#include "worker/low_rank/error_metric.h"

#include <gtest/gtest.h>

#include <limits>
#include <tuple>

#include "tests/worker/factorize/loss_reference.h"
#include "tests/worker/factorize/reference.h"

namespace latentforge::low_rank {
namespace {

using factorize::MaxAbs;
using factorize::RandomMatrix;
using factorize::SecondMoment;

ErrorMetric Of(const at::Tensor& metric, int64_t out, const at::Tensor& q = {}) {
  const auto result = ErrorMetric::Of(metric, out, q);
  EXPECT_TRUE(result.ok()) << result.status();
  return *result;
}

at::Tensor Eye(int64_t n) { return at::eye(n, at::kDouble); }

// All products of one metric with the same R, and R R^T = Q^T G Q.
TEST(ErrorMetricTest, ItsRootIsOneOfTheMetricInTheRotatedOutputs) {
  const at::Tensor full = SecondMoment(RandomMatrix(7, 30, 1));
  const at::Tensor diagonal = full.diagonal();
  const at::Tensor q = std::get<0>(at::linalg_qr(RandomMatrix(7, 4, 2)));
  for (const at::Tensor& metric : {full, diagonal, at::Tensor()}) {
    const at::Tensor g = !metric.defined() ? Eye(7) : metric.dim() == 1 ? at::diag(metric) : metric;
    for (const bool rotated : {false, true}) {
      const at::Tensor basis = rotated ? q : at::Tensor();
      const at::Tensor expected = rotated ? at::matmul(at::matmul(q.t(), g), q) : g;
      const int64_t k = expected.size(0);
      const ErrorMetric m = Of(metric, 7, basis);
      const at::Tensor root = m.Root(Eye(k));
      // Rounding of an eigenproblem of 7 values and of its products, of condition 1e2.
      EXPECT_LT(MaxAbs(at::matmul(root, root.t()) - expected), 1e-13 * MaxAbs(expected));
      const at::Tensor x = RandomMatrix(k, k, 3);
      EXPECT_LT(MaxAbs(m.Weigh(x) - at::matmul(root.t(), x)), 1e-13);
      EXPECT_LT(MaxAbs(m.WeighBothSides(x) - at::matmul(at::matmul(root.t(), x), root)), 1e-13);
      EXPECT_LT(MaxAbs(m.Weigh(m.Unweigh(x)) - x), 1e-12);
    }
  }
}

// A direction that G does not see counts 1e-12 of the largest, and R has an inverse.
TEST(ErrorMetricTest, UnseenDirectionsCountAlmostNothing) {
  const at::Tensor diagonal = at::tensor({4.0, 0.0, 1.0}, at::kDouble);
  const ErrorMetric m = Of(diagonal, 3);
  const at::Tensor root = m.Root(Eye(3));
  const at::Tensor squares = at::matmul(root, root.t());
  EXPECT_NEAR(squares[1][1].item<double>(), 4e-12, 1e-24);
  EXPECT_NEAR(squares[0][0].item<double>(), 4, 1e-14);
  EXPECT_LT(MaxAbs(m.Weigh(m.Unweigh(Eye(3))) - Eye(3)), 1e-14);
}

TEST(ErrorMetricTest, RefusesWhatIsNoMetric) {
  const auto refused = [](const at::Tensor& metric, const char* text) {
    const auto result = ErrorMetric::Of(metric, 3, {});
    EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
    EXPECT_NE(result.status().message().find(text), absl::string_view::npos) << result.status();
  };
  refused(at::ones({4}, at::kDouble), "metric has shape [4]");
  refused(at::ones({3, 4}, at::kDouble), "metric has shape [3, 4]");
  refused(at::ones({3}, at::kFloat), "type Float, expected [3] Double");
  refused(at::zeros({3, 3}, at::kDouble), "eigenvalues from 0 to 0");
  refused(at::tensor({1.0, -0.5, 2.0}, at::kDouble), "eigenvalues from -0.5 to 2");
  const auto infinite =
      ErrorMetric::Of(at::full({3}, std::numeric_limits<double>::infinity(), at::kDouble), 3, {});
  EXPECT_TRUE(absl::IsInternal(infinite.status()));
}

}  // namespace
}  // namespace latentforge::low_rank
