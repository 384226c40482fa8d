#include "worker/convert/low_rank_layer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>

namespace latentforge::convert {
namespace {

constexpr int64_t kTokens = 200;

at::Tensor MomentOf(int64_t width, const at::Tensor& rows) {
  EXPECT_EQ(rows.size(1), width);
  return rows.t().mm(rows) / double(rows.size(0));
}

low_rank::InputMoments MomentsOfRows(const at::Tensor& rows) {
  return {.tokens = kTokens,
          .mean = rows.mean(0),
          .mean_abs = rows.abs().mean(0),
          .covariance = MomentOf(rows.size(1), rows)};
}

// A layer of every shape: wide, narrow and square maps, with random inputs and gradients.
class LowRankLayerTest : public testing::Test {
 protected:
  LowRankLayerTest() {
    at::manual_seed(5);
    config_.hidden_size = 12;
    config_.intermediate_size = 20;
    config_.num_layers = 1;
    config_.num_heads = 4;
    config_.num_kv_heads = 2;
    config_.head_dim = 3;
    const auto rows = [](int64_t width) { return at::randn({kTokens, width}, at::kDouble); };
    for (const checkpoint::LinearMap& map : checkpoint::LinearMaps(config_)) {
      maps_.maps[outputs_.size()].weight = at::randn({map.out, map.in}, at::kDouble);
      outputs_.emplace_back();
    }
    const at::Tensor attention = rows(12), attended = rows(12), mlp = rows(12), wide = rows(20);
    const at::Tensor inputs[] = {attention, attention, attention, attended, mlp, mlp, wide};
    for (size_t map = 0; map < kLinearMaps; ++map) {
      outputs_[map] = inputs[map].mm(maps_.maps[map].weight.t());
    }
    moments_.attention = MomentsOfRows(attention);
    moments_.attended = MomentsOfRows(attended);
    moments_.mlp = MomentsOfRows(mlp);
    moments_.down = {.mean = wide.mean(0),
                     .mean_abs = wide.abs().mean(0),
                     .mean_square = wide.square().mean(0),
                     .output_gram = MomentOf(12, outputs_[kDown])};
    // Outputs that count by very different amounts.
    const auto gradient = [&](int64_t width) {
      return MomentOf(width, rows(width) * at::logspace(-1, 1, width, 10, at::kDouble));
    };
    fisher_ = {.q = gradient(12),
               .k = gradient(6),
               .v = gradient(6),
               .o = gradient(12),
               .down = gradient(12),
               .gate = gradient(20).diagonal().clone(),
               .up = gradient(20).diagonal().clone()};
  }

  LayerProblem Problem() const {
    return {.config = config_, .maps = maps_, .moments = moments_, .fisher = &fisher_};
  }

  checkpoint::ModelConfig config_;
  LayerMaps maps_;
  calibrate::LinearMoments moments_;
  calibrate::LinearFisher fisher_;
  std::vector<at::Tensor> outputs_;  // of each map, a row a token
};

// All latents of a map together are worth what leaving the map out costs: tr(G E[y y^T]), summed
// here token by token. To rounding: 20 values that are sums of 200 products.
TEST_F(LowRankLayerTest, LatentsOfEveryMapAreWorthWhatTheirOutputsCost) {
  const auto spectra = MapSpectra(Problem(), LowRankSpec{.ratio = 0.3});
  ASSERT_TRUE(spectra.ok()) << spectra.status();
  const at::Tensor metrics[] = {fisher_.q,           fisher_.k,         fisher_.v,   fisher_.o,
                                fisher_.gate.diag(), fisher_.up.diag(), fisher_.down};
  for (size_t map = 0; map < kLinearMaps; ++map) {
    // The ridge of 1e-3 of the mean keeps outputs that a few tokens see too little.
    const at::Tensor ridge =
        1e-3 * metrics[map].diagonal().mean() * at::eye(metrics[map].size(0), at::kDouble);
    const at::Tensor& y = outputs_[map];
    const double cost = (y.mm(metrics[map] + ridge) * y).sum().item<double>() / double(kTokens);
    const std::vector<double>& energies = (*spectra)[map];
    const double worth = std::accumulate(energies.begin(), energies.end(), 0.0);
    EXPECT_NEAR(worth, cost, 1e-10 * cost) << checkpoint::LinearMaps(config_)[map].module;
  }
}

}  // namespace
}  // namespace latentforge::convert
