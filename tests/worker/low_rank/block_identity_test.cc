#include "worker/low_rank/block_identity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "checkpoint/rank_rule.h"
#include "tests/worker/factorize/reference.h"
#include "tests/worker/low_rank/local_reference.h"

namespace latentforge::low_rank {
namespace {

using factorize::MaxAbs;
using factorize::RandomMatrix;

constexpr IdentitySide kSides[] = {IdentitySide::kLeft, IdentitySide::kRight};

LowRank RandomFactors(int64_t out, int64_t in, int64_t rank, uint64_t seed) {
  return {.down = RandomMatrix(rank, in, seed),
          .up = RandomMatrix(out, rank, seed + 1),
          .bias = RandomMatrix(out, 1, seed + 2).squeeze(1)};
}

IdentityFactors Identity(const LowRank& low, IdentitySide side) {
  const auto result = ToIdentity(low, side);
  EXPECT_TRUE(result.ok()) << result.status();
  return *result;
}

// The factor that holds the identity, [r, n].
at::Tensor IdentityRows(const LowRank& low, IdentitySide side) {
  return side == IdentitySide::kRight ? low.down : low.up.t();
}

double Condition(const at::Tensor& matrix) {
  const at::Tensor s = std::get<1>(at::linalg_svd(matrix));
  return s[0].item<double>() / s[-1].item<double>();
}

// Oracle 4: the product stays, r^2 entries are an identity, r (out + in - r) numbers are stored.
TEST(BlockIdentityTest, KeepsTheProductAndStoresNoIdentity) {
  for (const auto& [out, in, rank] : {std::tuple{20L, 30L, 7L},
                                      {30L, 20L, 7L},
                                      {16L, 16L, 16L},
                                      {9L, 30L, 9L},
                                      {30L, 9L, 9L},
                                      {12L, 12L, 1L}}) {
    const LowRank low = RandomFactors(out, in, rank, 40 + out);
    const at::Tensor product = Product(low);
    for (const IdentitySide side : kSides) {
      const IdentityFactors identity = Identity(low, side);
      EXPECT_EQ(StoredNumbers(identity),
                checkpoint::Parameters(checkpoint::RankRule::kBlockIdentity, out, in, rank));
      const LowRank whole = Expand(identity);
      // One solve and one product in fp64 with a condition of at most 1e3.
      EXPECT_LT(MaxAbs(Product(whole) - product), 1e-12 * MaxAbs(product));
      EXPECT_TRUE(at::equal(whole.bias, low.bias));
      const at::Tensor rows = IdentityRows(whole, side);
      EXPECT_TRUE(at::equal(rows.index_select(1, identity.pivots.narrow(0, 0, rank)),
                            at::eye(rank, at::kDouble)));
      EXPECT_TRUE(at::equal(std::get<0>(identity.pivots.sort()), at::arange(rows.size(1))));
      for (const at::Tensor& part :
           {identity.pivots.narrow(0, 0, rank), identity.pivots.slice(0, rank)}) {
        EXPECT_TRUE((part.diff() > 0).all().item<bool>());
      }
    }
  }
}

TEST(BlockIdentityTest, AppliesWithoutTheIdentity) {
  for (const auto& [out, in] : {std::pair{20L, 30L}, {30L, 20L}, {8L, 8L}}) {
    LowRank low = RandomFactors(out, in, 8, 50 + out);
    const at::Tensor x = RandomMatrix(11, in, 51);
    const at::Tensor linear = at::matmul(x, Product(low).t());
    for (const IdentitySide side : kSides) {
      // As above.
      EXPECT_LT(MaxAbs(Apply(Identity(low, side), x) - linear - low.bias), 1e-12 * MaxAbs(linear));
      LowRank bare = low;
      bare.bias = at::Tensor();
      EXPECT_LT(MaxAbs(Apply(Identity(bare, side), x) - linear), 1e-12 * MaxAbs(linear));
    }
  }
}

// Oracle 4: pivots bound the elements by 2, where the leading block is nearly singular and the
// leading columns give huge ones.
TEST(BlockIdentityTest, PivotsBoundElementsAndCondition) {
  LowRank low = RandomFactors(96, 96, 30, 60);
  // Channel 1 nearly repeats channel 0: in the leading columns (rows) as they stand, no identity.
  low.down.select(1, 1).copy_(low.down.select(1, 0) + 1e-6 * low.down.select(1, 50));
  low.up.select(0, 1).copy_(low.up.select(0, 0) + 1e-6 * low.up.select(0, 50));
  for (const IdentitySide side : kSides) {
    const at::Tensor rows = IdentityRows(low, side);
    const at::Tensor leading = rows.narrow(1, 0, 30);
    EXPECT_GT(Condition(leading), 1e6);
    EXPECT_GT(MaxAbs(at::linalg_solve(leading, rows.slice(1, 30))), 1e4);
    const IdentityFactors identity = Identity(low, side);
    EXPECT_LE(MaxAbs(identity.rest), 2 + 1e-9);
    EXPECT_LT(Condition(rows.index_select(1, identity.pivots.narrow(0, 0, 30))), 200);
  }
}

// Wilkinson's matrix: partial pivoting alone exchanges nothing and leaves elements of 2^(r - 1).
TEST(BlockIdentityTest, BoundsElementsWherePartialPivotingDoesNot) {
  const int64_t r = 20;
  const at::Tensor triangle =
      at::eye(r, at::kDouble) - at::ones({r, r}, at::kDouble).tril(-1);  // 1 and -1 below
  const at::Tensor last = -at::ones({1, r}, at::kDouble);
  const LowRank low{.down = at::cat({triangle, last}, 0).t().contiguous(),
                    .up = RandomMatrix(25, r, 70)};
  EXPECT_EQ(MaxAbs(at::linalg_solve(low.down.narrow(1, 0, r), low.down.slice(1, r))),
            std::pow(2.0, r - 1));
  const IdentityFactors identity = Identity(low, IdentitySide::kRight);
  EXPECT_LE(MaxAbs(identity.rest), 2);
  EXPECT_LT(MaxAbs(Product(Expand(identity)) - Product(low)), 1e-12 * MaxAbs(Product(low)));
}

// Latents of any scale, as those of quiet directions: rows of 1e-9 count as those of 1.
TEST(BlockIdentityTest, TheScaleOfLatentsDoesNotMatter) {
  const LowRank low = RandomFactors(24, 24, 10, 80);
  const at::Tensor scale = at::logspace(3, -9, 10, 10, at::kDouble);
  const LowRank scaled{.down = low.down * scale.unsqueeze(1), .up = low.up / scale};
  for (const IdentitySide side : kSides) {
    const IdentityFactors expected = Identity(low, side);
    const IdentityFactors identity = Identity(scaled, side);
    EXPECT_TRUE(at::equal(identity.pivots, expected.pivots));
    EXPECT_LT(MaxAbs(identity.rest - expected.rest), 1e-12);
    EXPECT_LT(MaxAbs(Product(Expand(identity)) - Product(low)), 1e-11 * MaxAbs(Product(low)));
  }
}

std::string Refusal(const LowRank& low, IdentitySide side,
                    absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
  const auto result = ToIdentity(low, side);
  EXPECT_EQ(result.status().code(), code) << result.status();
  return std::string(result.status().message());
}

TEST(BlockIdentityTest, RefusesDependentLatentsAndSaysHowManyThereAre) {
  // Five latents of which two are sums of others, to rounding.
  const at::Tensor mix = RandomMatrix(5, 3, 90);
  const LowRank low{.down = at::matmul(mix, RandomMatrix(3, 12, 91)),
                    .up = at::matmul(RandomMatrix(14, 3, 92), mix.t())};
  for (const IdentitySide side : kSides) {
    EXPECT_NE(Refusal(low, side).find("3 independent latents of 5"), std::string::npos);
  }
  LowRank silent = RandomFactors(8, 8, 3, 93);
  silent.down.select(0, 1).zero_();
  EXPECT_NE(Refusal(silent, IdentitySide::kRight).find("lower the rank to 2"), std::string::npos);
}

TEST(BlockIdentityTest, RefusesWrongArguments) {
  const LowRank low = RandomFactors(6, 9, 7, 94);
  EXPECT_NE(Refusal(low, IdentitySide::kLeft).find("rank is 7, expected at most 6"),
            std::string::npos);
  EXPECT_TRUE(ToIdentity(low, IdentitySide::kRight).ok());
  EXPECT_NE(Refusal({}, IdentitySide::kRight).find("not a non-empty matrix"), std::string::npos);
  EXPECT_NE(Refusal({.down = low.down.to(at::kFloat), .up = low.up}, IdentitySide::kRight)
                .find("of Double"),
            std::string::npos);
  EXPECT_NE(Refusal({.down = low.down.narrow(0, 0, 5), .up = low.up}, IdentitySide::kRight)
                .find("up has 7 columns, expected as many as down has rows, 5"),
            std::string::npos);
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_NE(Refusal({.down = low.down * infinity, .up = low.up}, IdentitySide::kRight,
                    absl::StatusCode::kInternal)
                .find("down is not finite"),
            std::string::npos);
}

}  // namespace
}  // namespace latentforge::low_rank
