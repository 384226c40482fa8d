#include "worker/low_rank/junction.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/worker/factorize/reference.h"
#include "tests/worker/low_rank/local_reference.h"
#include "worker/low_rank/local_decomposition.h"

namespace latentforge::low_rank {
namespace {

using factorize::MaxAbs;
using factorize::Preconditioner;
using factorize::Problem;
using factorize::RandomProblem;

constexpr Junction kFive[] = {Junction::kLeftSingular, Junction::kRightSingular,
                              Junction::kSymmetric, Junction::kLeftIdentity,
                              Junction::kRightIdentity};

// A decomposition and U, S, V, P from the definition.
struct Case {
  Problem p;
  LocalDecomposition decomposition;
  at::Tensor u, s, v, p_inverse;
};

Case MakeCase(int64_t out, int64_t in, Preconditioner kind) {
  const Problem p = RandomProblem(out, in, 200, 100 + out);
  auto d = LocalDecomposition::Compute({.weight = p.weight}, MomentsOf(p),
                                       {.preconditioner = kind, .damping = 1e-3});
  EXPECT_TRUE(d.ok()) << d.status();
  const at::Tensor matrix =
      factorize::PreconditionerMatrix(p, {.kind = kind, .damping = 1e-3, .alpha = 0.5});
  const auto [u, s, v] = at::linalg_svd(at::matmul(p.weight, matrix), /*full_matrices=*/false);
  return {p, *std::move(d), u, s, v, at::linalg_inv(matrix)};
}

LowRank Joined(const Case& c, int64_t rank, Junction junction) {
  const auto low = c.decomposition.At(rank);
  EXPECT_TRUE(low.ok()) << low.status();
  const auto joined = Join(*low, c.decomposition.SingularValues(), junction);
  EXPECT_TRUE(joined.ok()) << joined.status();
  return *joined;
}

// Oracle 4: all five have the same product.
TEST(JunctionTest, TheProductIsTheSameForAllFive) {
  for (const auto& [out, in] : {std::pair{10L, 16L}, {16L, 10L}}) {
    for (const Preconditioner kind : {Preconditioner::kIdentity, Preconditioner::kDiagonalL2,
                                      Preconditioner::kRootCovariance}) {
      const Case c = MakeCase(out, in, kind);
      for (const int64_t rank : {1, 5, 10}) {
        const auto low = c.decomposition.At(rank);
        ASSERT_TRUE(low.ok());
        const at::Tensor product = Product(*low);
        for (const Junction junction : kFive) {
          EXPECT_LT(MaxAbs(Product(Joined(c, rank, junction)) - product), 1e-10 * MaxAbs(product))
              << static_cast<int>(junction) << " rank " << rank;
        }
      }
    }
  }
}

// up = U S J and down = J^+ V P^+, each factor as the slides' list of J says; singular vectors are
// free in sign.
TEST(JunctionTest, SingularFormsAreThoseOfTheSlides) {
  const Case c = MakeCase(10, 16, Preconditioner::kRootCovariance);
  const int64_t rank = 6;
  const at::Tensor s = c.s.narrow(0, 0, rank);
  const at::Tensor us = c.u.narrow(1, 0, rank) * s;
  const at::Tensor vp = at::matmul(c.v.narrow(0, 0, rank), c.p_inverse);
  for (const auto& [junction, j] : {std::pair{Junction::kLeftSingular, at::ones_like(s)},
                                    std::pair{Junction::kRightSingular, s.reciprocal()},
                                    std::pair{Junction::kSymmetric, s.sqrt().reciprocal()}}) {
    const LowRank low = Joined(c, rank, junction);
    const at::Tensor up = us * j;
    const at::Tensor signs = (low.up * up).sum(0).sign();
    // Rounding times the condition of C^(1/2), 1e3, over relative gaps of 1e-2.
    EXPECT_LT(MaxAbs(low.up - up * signs), 1e-9 * MaxAbs(up)) << static_cast<int>(junction);
    const at::Tensor down = vp / j.unsqueeze(1) * signs.unsqueeze(1);
    EXPECT_LT(MaxAbs(low.down - down), 1e-9 * MaxAbs(down)) << static_cast<int>(junction);
  }
}

// The slides print J = [V]_{:r} for the right identity: that leaves one for P = I alone, while the
// pivot columns of V P^+ do for every P.
TEST(JunctionTest, TheRightIdentityHoldsForEveryPreconditioner) {
  for (const auto& [kind, printed] : {std::pair{Preconditioner::kIdentity, true},
                                      std::pair{Preconditioner::kRootCovariance, false}}) {
    const Case c = MakeCase(10, 16, kind);
    const at::Tensor v = c.v.narrow(0, 0, 6);
    const at::Tensor literal =
        at::linalg_solve(v.narrow(1, 0, 6), at::matmul(v, c.p_inverse)).narrow(1, 0, 6);
    EXPECT_EQ(MaxAbs(literal - at::eye(6, at::kDouble)) < 1e-9, printed);
    const at::Tensor down = Joined(c, 6, Junction::kRightIdentity).down;
    const at::Tensor unit = (down == 1).logical_and(down.abs().sum(0) == 1);
    EXPECT_EQ(unit.sum().item<int64_t>(), 6);
    const at::Tensor up = Joined(c, 6, Junction::kLeftIdentity).up;
    const at::Tensor unit_row = (up == 1).logical_and(up.abs().sum(1, true) == 1);
    EXPECT_EQ(unit_row.sum().item<int64_t>(), 6);
  }
}

TEST(JunctionTest, KeepsTheBias) {
  const Case c = MakeCase(10, 16, Preconditioner::kRootCovariance);
  LowRank low = *c.decomposition.At(4);
  low.bias = at::arange(10, at::kDouble);
  for (const Junction junction : kFive) {
    const auto joined = Join(low, c.decomposition.SingularValues(), junction);
    ASSERT_TRUE(joined.ok());
    EXPECT_TRUE(at::equal(joined->bias, low.bias));
  }
}

// A product of rank 2 asked for 3 latents: the forms that divide say so.
TEST(JunctionTest, RefusesASingularValueOfZero) {
  const Case c = MakeCase(10, 16, Preconditioner::kRootCovariance);
  const LowRank low = *c.decomposition.At(3);
  for (const Junction junction : {Junction::kLeftSingular, Junction::kSymmetric}) {
    const auto zero = Join(low, {2, 1, 0}, junction);
    EXPECT_TRUE(absl::IsInvalidArgument(zero.status()));
    EXPECT_NE(zero.status().message().find("singular value 2 is 0"), absl::string_view::npos);
    EXPECT_NE(zero.status().message().find("lower the rank to 2"), absl::string_view::npos);
    EXPECT_TRUE(absl::IsInvalidArgument(Join(low, {2, 1, std::nan("")}, junction).status()));
    const auto few = Join(low, {2, 1}, junction);
    EXPECT_NE(few.status().message().find("there are 2 singular values"), absl::string_view::npos);
  }
  EXPECT_TRUE(absl::IsInternal(Join(low, {2, 1, 5e-324}, Junction::kLeftSingular).status()));
  EXPECT_TRUE(Join(low, {2, 1, 0}, Junction::kRightSingular).ok());
}

}  // namespace
}  // namespace latentforge::low_rank
