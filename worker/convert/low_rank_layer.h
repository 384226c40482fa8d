// Compresses the linear maps of one decoder layer, as the specification of the method low_rank
// asks for.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/linear_maps.h"
#include "checkpoint/model_config.h"
#include "worker/calibrate/linear_fisher.h"
#include "worker/calibrate/linear_moments.h"
#include "worker/convert/low_rank_spec.h"
#include "worker/export/converted_layer.h"
#include "worker/low_rank/linear.h"
#include "worker/low_rank/mlp.h"

namespace latentforge::convert {

// Places in checkpoint::LinearMaps.
enum LinearMapIndex : size_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr size_t kLinearMaps = 7;

// Of the original, in fp64; a gate that the model lacks is undefined.
struct LayerMaps {
  std::array<low_rank::Linear, kLinearMaps> maps;
  at::Tensor q_norm, k_norm;  // [head_dim], with QK-norm
};

// What a layer's compression reads. Borrows everything.
struct LayerProblem {
  const checkpoint::ModelConfig& config;
  const LayerMaps& maps;
  const calibrate::LinearMoments& moments;
  const calibrate::LinearFisher* fisher = nullptr;  // what errors of outputs count; null: alike
  const low_rank::MlpTokens* mlp_tokens = nullptr;  // where its maps are compressed together
  checkpoint::LinearRanks ranks;                    // 0: the map stays dense
  int64_t sequence_length = 0;  // of the calibration: how far apart a query and a key are
};

struct CompressedLayer {
  exporter::LowRankLayer factors;  // fp64
  // (E|y - y'|^2 / E|y|^2)^(1/2) on the calibration tokens, of maps that are compressed together
  // that of what they make together; 0 where dense.
  std::array<double, kLinearMaps> errors = {};
};

// What the collector has to sum for `spec`.
calibrate::LinearMomentsNeeds NeedsOf(const LowRankSpec& spec,
                                      const checkpoint::ModelConfig& config);

// What each latent of each map is worth, the map being compressed for itself: with the Fisher
// information twice the loss in nats a token, by second order, else E|y - y'|^2. Empty for a map
// that the model lacks.
absl::StatusOr<std::array<std::vector<double>, kLinearMaps>> MapSpectra(const LayerProblem& problem,
                                                                        const LowRankSpec& spec);

// InvalidArgument and Internal as the functions of low_rank/, with the map's name.
absl::StatusOr<CompressedLayer> CompressLayer(const LayerProblem& problem, const LowRankSpec& spec);

}  // namespace latentforge::convert
