#include "worker/finetune/relative_adam.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace latentforge::finetune {
namespace {

// The formula of the header for one latent, one element at a time in fp64.
struct AdamReference {
  std::vector<double> x, m, v;
  double scale;

  void Step(const std::vector<double>& g, int t, double rate, const AdamOptions& o) {
    double mean = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g[i];
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g[i] * g[i];
      mean += v[i] / double(x.size()) / (1 - std::pow(o.beta2, t));
    }
    for (size_t i = 0; i < x.size(); ++i) {
      const double first = m[i] / (1 - std::pow(o.beta1, t));
      const double second = v[i] / (1 - std::pow(o.beta2, t));
      x[i] -= rate * o.weight_decay * x[i];
      x[i] -= rate * scale * first / (std::sqrt(second) + o.relative_epsilon * std::sqrt(mean));
    }
  }
};

TEST(RelativeAdamTest, FollowsTheFormulaForEachLatent) {
  // Two latents of three elements, a thousand times apart.
  const std::vector<std::vector<double>> start = {{1.0, -2.0, 0.5}, {3e-3, 1e-3, -2e-3}};
  for (const LatentAxis axis : {LatentAxis::kRows, LatentAxis::kColumns}) {
    const auto place = [&](const at::Tensor& rows) {
      return axis == LatentAxis::kRows ? rows : rows.t().contiguous();
    };
    MatrixSlot slot = MakeSlot(
        place(at::stack({at::tensor(start[0], at::kDouble), at::tensor(start[1], at::kDouble)})),
        {.axis = axis}, Optimizer::kAdamW);
    std::vector<AdamReference> references;
    for (const std::vector<double>& x : start) {
      const double scale = std::sqrt((x[0] * x[0] + x[1] * x[1] + x[2] * x[2]) / 3);
      references.push_back({x, std::vector<double>(3), std::vector<double>(3), scale});
    }
    const AdamOptions options{.weight_decay = 0.1};
    for (int t = 1; t <= 20; ++t) {
      std::vector<at::Tensor> gradients;
      for (int l = 0; l < 2; ++l) {
        std::vector<double> g;
        for (int i = 0; i < 3; ++i) g.push_back(std::sin(t * (i + 1) + l) * (i == 2 ? 1e-6 : 1e3));
        references[size_t(l)].Step(g, t, 0.01, options);
        gradients.push_back(at::tensor(g, at::kFloat));
      }
      Step(slot, place(at::stack(gradients)), 1, t, 0.01, options);
    }
    const at::Tensor found = place(slot.master);
    for (int l = 0; l < 2; ++l) {
      for (int i = 0; i < 3; ++i) {
        // Twenty steps of about 0.01 of the scale, each rounded to fp32 a few times.
        EXPECT_NEAR(found[l][i].item<double>(), references[size_t(l)].x[size_t(i)],
                    1e-5 * references[size_t(l)].scale);
      }
    }
  }
}

TEST(RelativeAdamTest, AScaledProblemTakesScaledSteps) {
  MatrixSlot a = MakeSlot(at::tensor({1.0, 2.0}).view({1, 2}), {}, Optimizer::kAdamW);
  MatrixSlot b = MakeSlot(at::tensor({1024.0, 2048.0}).view({1, 2}), {}, Optimizer::kAdamW);
  for (int t = 1; t <= 3; ++t) {
    const at::Tensor gradient = at::tensor({0.3, -0.1}, at::kFloat).view({1, 2});
    Step(a, gradient, 1, t, 0.1, {});
    Step(b, gradient, 4096, t, 0.1, {});
  }
  // Powers of two change no rounding.
  EXPECT_TRUE(at::equal(a.master * 1024, b.master));
}

TEST(RelativeAdamTest, ALatentWithoutAnyGradientStays) {
  MatrixSlot slot = MakeSlot(at::tensor({1.0, 2.0, 3.0, 4.0}).view({2, 2}), {}, Optimizer::kAdamW);
  const at::Tensor gradient = at::tensor({0.0, 0.0, 1.0, 1.0}, at::kFloat).view({2, 2});
  Step(slot, gradient, 1, 1, 0.1, {.weight_decay = 0.5});
  EXPECT_TRUE(at::equal(slot.master[0], at::tensor({1.0f, 2.0f})));
  EXPECT_FALSE(at::equal(slot.master[1], at::tensor({3.0f, 4.0f})));
}

}  // namespace
}  // namespace latentforge::finetune
