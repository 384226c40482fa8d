#include "worker/finetune/relative_muon.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace latentforge::finetune {
namespace {

at::Tensor Random(int64_t rows, int64_t columns, int seed) {
  at::manual_seed(static_cast<uint64_t>(seed));
  return at::randn({rows, columns}, at::kDouble);
}

// In fp64 by the singular values, on which the iteration acts one by one.
at::Tensor ReferenceOrthogonalized(const at::Tensor& x) {
  const auto [u, values, vt] = at::linalg_svd(x, /*full_matrices=*/false);
  at::Tensor s = values / values.norm();
  for (int i = 0; i < 5; ++i) s = 3.4445 * s - 4.7750 * s.pow(3) + 2.0315 * s.pow(5);
  return at::matmul(u * s, vt);
}

double Distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b).abs().max().item<double>();
}

TEST(RelativeMuonTest, MakesSingularValuesAboutEqual) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{12, 40}, {40, 12}, {9, 9}}) {
    const at::Tensor x = Random(rows, columns, 1);
    const at::Tensor found = Orthogonalized(x.to(at::kFloat));
    // The slope of the iteration at its start is 3.4445^5 = 485, so that an fp32 error of 1e-7 in
    // the values, all below 1, may become 5e-5.
    EXPECT_LT(Distance(found, ReferenceOrthogonalized(x)), 1e-4) << rows << " x " << columns;
    const at::Tensor values = at::linalg_svdvals(found.to(at::kDouble));
    EXPECT_GT(values.min().item<double>(), 0.67);
    EXPECT_LT(values.max().item<double>(), 1.21);
  }
  EXPECT_TRUE(at::equal(Orthogonalized(at::zeros({2, 3})), at::zeros({2, 3})));
  // Squares of these are below what fp32 holds.
  EXPECT_GT(Orthogonalized(at::full({2, 2}, 1e-25f)).abs().max().item<double>(), 0.3);
}

// The formula of the header in fp64.
struct MuonReference {
  at::Tensor x, m, scale;

  void Step(const at::Tensor& g, double rate, const MuonOptions& o, int64_t block) {
    m = o.momentum * m + (1 - o.momentum) * g;
    const at::Tensor ahead = scale * (o.momentum * m + (1 - o.momentum) * g);
    x = x - rate * o.weight_decay * x;
    for (int64_t begin = 0; begin < x.size(0); begin += block) {
      const at::Tensor part = ahead.narrow(0, begin, block);
      const double size = std::sqrt(static_cast<double>(std::max(block, x.size(1))));
      x.narrow(0, begin, block)
          .sub_(rate * o.step_size * size * scale.narrow(0, begin, block) *
                ReferenceOrthogonalized(part));
    }
  }
};

TEST(RelativeMuonTest, FollowsTheFormulaInEachBlock) {
  const MuonOptions options{.momentum = 0.8, .step_size = 0.4, .weight_decay = 0.1};
  for (const LatentAxis axis : {LatentAxis::kRows, LatentAxis::kColumns}) {
    const auto place = [&](const at::Tensor& rows) {
      return axis == LatentAxis::kRows ? rows : rows.t().contiguous();
    };
    // Latents of sizes a hundred times apart, in two blocks of three.
    const at::Tensor sizes = at::tensor({1.0, 0.1, 0.01, 1.0, 10.0, 0.3}, at::kDouble);
    const at::Tensor start = Random(6, 8, 2) * sizes.unsqueeze(1);
    MatrixSlot slot = MakeSlot(place(start), {.axis = axis, .block = 3}, Optimizer::kMuon);
    EXPECT_FALSE(slot.second.defined());
    MuonReference reference{start.clone(), at::zeros_like(start),
                            start.square().mean(1, /*keepdim=*/true).sqrt()};
    for (int t = 0; t < 5; ++t) {
      const at::Tensor gradient = Random(6, 8, 10 + t);
      reference.Step(0.5 * gradient, 0.05, options, 3);
      Step(slot, place(gradient.to(at::kFloat)), 0.5, 0.05, options);
    }
    // Five steps of about 0.05 of a latent's size, each wrong by 1e-4 of itself at most.
    const at::Tensor error = (place(slot.master).to(at::kDouble) - reference.x) / reference.scale;
    EXPECT_LT(error.abs().max().item<double>(), 5 * 0.05 * 1e-3);
  }
}

TEST(RelativeMuonTest, NeitherTheUnitOfTheLossNorTheDivisionBetweenFactorsMatters) {
  const at::Tensor start = Random(4, 6, 3), gradient = Random(4, 6, 4).to(at::kFloat);
  MatrixSlot a = MakeSlot(start, {}, Optimizer::kMuon);
  MatrixSlot b = MakeSlot(start * 1024, {}, Optimizer::kMuon);
  // The gradient by 1024 x is 1/1024 of that by x; powers of two change no rounding.
  Step(a, gradient, 1, 0.1, {});
  Step(b, gradient / 1024, 4096, 0.1, {});
  EXPECT_TRUE(at::equal(a.master * 1024, b.master));
}

TEST(RelativeMuonTest, ALatentWithoutAnyGradientStays) {
  const at::Tensor start = Random(3, 4, 5);
  MatrixSlot slot = MakeSlot(start, {}, Optimizer::kMuon);
  at::Tensor gradient = Random(3, 4, 6).to(at::kFloat);
  gradient[1].zero_();
  Step(slot, gradient, 1, 0.1, {});
  EXPECT_TRUE(at::equal(slot.master[1], start[1].to(at::kFloat)));
  EXPECT_FALSE(at::equal(slot.master[0], start[0].to(at::kFloat)));
  Step(slot, at::zeros({3, 4}), 1, 0.1, {});  // momentum goes on, and nothing is divided by zero
  EXPECT_TRUE(at::isfinite(slot.master).all().item<bool>());
}

}  // namespace
}  // namespace latentforge::finetune
