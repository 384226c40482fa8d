#include "worker/low_rank/tucker_mode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "tests/worker/low_rank/joint_reference.h"

namespace latentforge::low_rank {
namespace {

// Metrics of 3 heads of 4 outputs, one of them singular.
at::Tensor Metrics(uint64_t seed) {
  std::vector<at::Tensor> metrics;
  for (const int64_t rank : {4, 2, 4}) {
    const at::Tensor root = RandomMatrix(4, rank, seed++);
    metrics.push_back(at::matmul(root, root.t()));
  }
  return at::stack(metrics);
}

struct Toy {
  at::Tensor weight;  // [12, D]
  at::Tensor covariance;
  at::Tensor metrics = Metrics(7);
  TuckerMode mode;
};

Toy MakeToy(int64_t d, int64_t tokens, uint64_t seed) {
  const at::Tensor weight = RandomMatrix(12, d, seed);
  const at::Tensor covariance = MomentsOf(ToyInputs(d, tokens, seed + 1)).covariance;
  auto mode = TuckerMode::Create(weight, covariance, 4);
  EXPECT_TRUE(mode.ok()) << mode.status();
  return {.weight = weight, .covariance = covariance, .mode = *std::move(mode)};
}

ModeBasis Solve(const Toy& toy, int64_t rank) {
  auto basis = toy.mode.Solve(toy.metrics, rank);
  EXPECT_TRUE(basis.ok()) << basis.status();
  return *std::move(basis);
}

// M = sum_j C^(1/2) W_j^T S_j W_j C^(1/2).
at::Tensor Operator(const Toy& toy) {
  const at::Tensor preconditioned = at::matmul(toy.weight, SymmetricRoot(toy.covariance));
  at::Tensor sum = at::zeros_like(toy.covariance);
  for (int64_t head = 0; head < 3; ++head) {
    const at::Tensor q = Head(preconditioned, head, 4);
    sum = sum + at::matmul(at::matmul(q.t(), toy.metrics[head]), q);
  }
  return sum;
}

// D = 20 is solved among the 12 outputs, D = 9 among the inputs.
TEST(TuckerModeTest, LatentsAreTheLeadingEigenvectors) {
  for (const int64_t d : {20L, 9L}) {
    const Toy toy = MakeToy(d, 60, 20);
    const at::Tensor root = SymmetricRoot(toy.covariance);
    for (const int64_t rank : {1L, 3L, 6L}) {
      const at::Tensor rows = LeadingRows(Operator(toy), rank);
      const at::Tensor decoder = at::matmul(at::matmul(toy.weight, root), rows.t());
      const at::Tensor product = at::matmul(at::matmul(decoder, rows), at::linalg_inv(root));
      const LowRank factors = toy.mode.Factors(Solve(toy, rank), rank);
      // Eigenvalues spread over 1e6 here with gaps above 1e-4 of the largest, and C's condition
      // number is 1e4: rounding of 1e-16 grows to 1e-10 at most.
      EXPECT_LT(MaxAbs(at::matmul(factors.up, factors.down) - product), 1e-9 * MaxAbs(product));
      const at::Tensor variance =
          at::matmul(at::matmul(factors.down, toy.covariance), factors.down.t());
      EXPECT_LT(MaxAbs(variance - at::eye(rank, at::kDouble)), 1e-9);
      EXPECT_LT(MaxAbs(factors.up.abs() - decoder.abs()), 1e-9 * MaxAbs(decoder));
    }
  }
}

TEST(TuckerModeTest, TheSpectrumIsWhatEachLatentKeeps) {
  for (const int64_t d : {20L, 9L}) {
    const Toy toy = MakeToy(d, 60, 21);
    const auto spectrum = toy.mode.Spectrum(toy.metrics);
    ASSERT_TRUE(spectrum.ok()) << spectrum.status();
    ASSERT_EQ(int64_t(spectrum->size()), toy.mode.max_rank());
    double kept = 0;
    for (int64_t rank = 1; rank <= 6; ++rank) {
      kept += (*spectrum)[rank - 1];
      const at::Tensor energy = Solve(toy, rank).energy;
      EXPECT_NEAR((toy.metrics * energy).sum().item<double>(), kept, 1e-10 * kept);
    }
    const double all = (toy.metrics * toy.mode.energy()).sum().item<double>();
    EXPECT_NEAR(Operator(toy).trace().item<double>(), all, 1e-12 * all);
  }
}

// 5 tokens in 20 or 9 channels: no inverse of C exists. On those tokens the decoder is still the
// best for its latents.
TEST(TuckerModeTest, FewerTokensThanChannels) {
  for (const int64_t d : {20L, 9L}) {
    const Toy toy = MakeToy(d, 5, 22);
    const at::Tensor m = Operator(toy);
    for (const int64_t rank : {2L, 5L, 8L}) {
      const ModeBasis basis = Solve(toy, rank);
      EXPECT_EQ(basis.up.size(1), std::min<int64_t>(rank, 5));
      const at::Tensor values = at::linalg_eigvalsh(m).flip({0}).narrow(0, 0, rank).clamp_min(0);
      const double kept = values.sum().item<double>();
      EXPECT_NEAR((toy.metrics * basis.energy).sum().item<double>(), kept, 1e-10 * kept);
      const LowRank factors = toy.mode.Factors(basis, rank);
      EXPECT_EQ(factors.rank(), rank);
      const at::Tensor crossed =
          at::matmul(at::matmul(toy.weight, toy.covariance), factors.down.t());
      const at::Tensor moments =
          at::matmul(at::matmul(factors.down, toy.covariance), factors.down.t());
      EXPECT_LT(MaxAbs(crossed - at::matmul(factors.up, moments)), 1e-9 * MaxAbs(crossed));
    }
  }
}

// Oracle 7 for one mode: whatever the tokens show and the metrics see, W comes back. What the
// latents that 5 tokens define leave over is found without reference to them.
TEST(TuckerModeTest, EveryLatentIsExactForEveryInput) {
  for (const int64_t d : {20L, 9L}) {
    for (const int64_t tokens : {60L, 5L}) {
      const Toy toy = MakeToy(d, tokens, 23);
      const int64_t rank = toy.mode.max_rank();
      const LowRank factors = toy.mode.Factors(Solve(toy, rank), rank);
      EXPECT_EQ(factors.rank(), rank);
      // As for the eigenvectors above.
      EXPECT_LT(MaxAbs(at::matmul(factors.up, factors.down) - toy.weight), 1e-9)
          << d << " channels, " << tokens << " tokens";
    }
  }
}

TEST(TuckerModeTest, WithoutACovarianceItIsTheIdentity) {
  for (const int64_t d : {20L, 9L}) {
    Toy toy = MakeToy(d, 60, 24);
    const auto with_identity = TuckerMode::Create(toy.weight, at::eye(d, at::kDouble), 4);
    const auto without = TuckerMode::Create(toy.weight, {}, 4);
    ASSERT_TRUE(with_identity.ok() && without.ok());
    const auto a = with_identity->Solve(toy.metrics, 4);
    const auto b = without->Solve(toy.metrics, 4);
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_LT(MaxAbs(a->up - b->up), 1e-10);
    EXPECT_LT(MaxAbs(with_identity->energy() - without->energy()), 1e-12);
  }
}

TEST(TuckerModeTest, SilentInputsDefineNoLatents) {
  const at::Tensor weight = RandomMatrix(12, 20, 30);
  const auto mode = TuckerMode::Create(weight, at::zeros({20, 20}, at::kDouble), 4);
  ASSERT_TRUE(mode.ok()) << mode.status();
  const auto basis = mode->Solve(Metrics(1), 12);
  ASSERT_TRUE(basis.ok()) << basis.status();
  EXPECT_EQ(basis->up.size(1), 0);
  const LowRank factors = mode->Factors(*basis, 12);
  EXPECT_LT(MaxAbs(at::matmul(factors.up, factors.down) - weight), 1e-13 * MaxAbs(weight) * 20);
}

TEST(TuckerModeTest, RefusesWhatIsNotFinite) {
  const at::Tensor weight = 1e200 * RandomMatrix(12, 20, 31);
  EXPECT_EQ(TuckerMode::Create(weight, {}, 4).status().code(), absl::StatusCode::kInternal);
  const Toy toy = MakeToy(20, 60, 32);
  EXPECT_EQ(toy.mode.Solve(1e305 * toy.metrics, 3).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace latentforge::low_rank
