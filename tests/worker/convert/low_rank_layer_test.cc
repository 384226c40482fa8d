#include "worker/convert/low_rank_layer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>

namespace latentforge::convert {
namespace {

at::Tensor Covariance(int64_t width) {
  const at::Tensor x = at::randn({4 * width, width}, at::kDouble);
  return at::matmul(x.t(), x) / double(4 * width);
}

// A layer of random maps whose outputs count very differently.
class LowRankLayerTest : public testing::Test {
 protected:
  LowRankLayerTest() {
    at::manual_seed(3);
    config_.hidden_size = 12;
    config_.intermediate_size = 20;
    config_.num_heads = 3;
    config_.num_kv_heads = 1;
    config_.head_dim = 4;
    const auto table = checkpoint::LinearMaps(config_);
    for (size_t i = 0; i < kLinearMaps; ++i) {
      maps_.maps[i].weight = at::randn({table[i].out, table[i].in}, at::kDouble);
    }
    const auto input = [](int64_t width) {
      return low_rank::InputMoments{.tokens = 100,
                                    .mean = at::randn({width}, at::kDouble),
                                    .mean_abs = at::rand({width}, at::kDouble),
                                    .covariance = Covariance(width)};
    };
    moments_.attention = input(12);
    moments_.attended = input(12);
    moments_.mlp = input(12);
    activated_ = Covariance(20);
    const at::Tensor& down = maps_.maps[kDown].weight;
    moments_.down = {.mean = at::zeros({20}, at::kDouble),
                     .mean_abs = at::rand({20}, at::kDouble),
                     .mean_square = activated_.diagonal().clone(),
                     .output_gram = at::matmul(at::matmul(down, activated_), down.t())};
    const auto square = [](int64_t width) {
      const at::Tensor scale = at::logspace(-2, 1, width, 10, at::kDouble);
      return Covariance(width) * at::outer(scale, scale);
    };
    fisher_ = {.q = square(12),
               .k = square(4),
               .v = square(4),
               .o = square(12),
               .down = square(12),
               .gate = at::logspace(-3, 1, 20, 10, at::kDouble),
               .up = at::logspace(1, -3, 20, 10, at::kDouble)};
  }

  at::Tensor Metric(size_t map) const {
    const std::array<at::Tensor, kLinearMaps> metrics = {
        fisher_.q, fisher_.k, fisher_.v, fisher_.o, fisher_.gate, fisher_.up, fisher_.down};
    return metrics[map].dim() == 2 ? metrics[map] : at::diag(metrics[map]);
  }
  at::Tensor InputCovariance(size_t map) const {
    if (map == kDown) return activated_;
    if (map == kO) return moments_.attended.covariance;
    return map == kGate || map == kUp ? moments_.mlp.covariance : moments_.attention.covariance;
  }
  // tr(G E C E^T) of an error E of the map.
  double Loss(size_t map, const at::Tensor& error) const {
    return at::matmul(at::matmul(Metric(map), error), InputCovariance(map))
        .mul(error)
        .sum()
        .item<double>();
  }
  LayerProblem Problem(bool weighted, const checkpoint::LinearRanks& ranks = {}) const {
    return {.config = config_,
            .maps = maps_,
            .moments = moments_,
            .fisher = weighted ? &fisher_ : nullptr,
            .ranks = ranks,
            .sequence_length = 8};
  }

  checkpoint::ModelConfig config_;
  LayerMaps maps_;
  calibrate::LinearMoments moments_;
  at::Tensor activated_;
  calibrate::LinearFisher fisher_;
};

// All latents together are worth what no output at all costs. The ridge of the metric adds 1e-3 of
// its mean diagonal to each output, which is below 1e-2 of the whole here.
TEST_F(LowRankLayerTest, EveryMapsSpectrumIsInTheFisherInformationsUnit) {
  const auto spectra = MapSpectra(Problem(true), {});
  ASSERT_TRUE(spectra.ok()) << spectra.status();
  for (size_t map = 0; map < kLinearMaps; ++map) {
    const double whole = Loss(map, maps_.maps[map].weight);
    const auto& spectrum = (*spectra)[map];
    EXPECT_NEAR(std::accumulate(spectrum.begin(), spectrum.end(), 0.0), whole, 1e-2 * whole)
        << "map " << map;
  }
}

// A factorisation for the weighted loss loses less of it than one that knows no weights, in every
// map.
TEST_F(LowRankLayerTest, EveryMapIsCompressedForTheWeightedLoss) {
  const checkpoint::LinearRanks ranks{
      .q = 5, .k = 2, .v = 2, .o = 5, .gate = 6, .up = 6, .down = 5};
  const LowRankSpec spec{.layout = checkpoint::RankRule::kNaive};
  const auto weighted = CompressLayer(Problem(true, ranks), spec);
  const auto plain = CompressLayer(Problem(false, ranks), spec);
  ASSERT_TRUE(weighted.ok() && plain.ok()) << weighted.status() << plain.status();
  const auto product = [](const exporter::LowRankLayer& layer, size_t map) {
    const std::array<exporter::LowRankMap, kLinearMaps> all = {
        layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down};
    return at::matmul(all[map].up, all[map].down);
  };
  for (size_t map = 0; map < kLinearMaps; ++map) {
    const at::Tensor& w = maps_.maps[map].weight;
    EXPECT_LT(Loss(map, w - product(weighted->factors, map)),
              0.95 * Loss(map, w - product(plain->factors, map)))
        << "map " << map;
  }
}

}  // namespace
}  // namespace latentforge::convert
