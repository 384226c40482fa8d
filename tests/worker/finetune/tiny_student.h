// A tiny checkpoint with latents of its own projections, for tests of healing.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "checkpoint/tensor_catalogue.h"
#include "tests/checkpoint/fixture.h"
#include "worker/finetune/trainable_weights.h"
#include "worker/model/weights.h"

namespace latentforge::finetune {

inline std::unique_ptr<checkpoint::Checkpoint> TinyModel(checkpoint::Family family,
                                                         const std::string& name) {
  const auto folder = checkpoint::NewTestDirectory(name) / "model";
  if (!checkpoint::WriteTinyCheckpoint(folder, {.family = family, .num_layers = 3, .scale = 0.5})
           .ok()) {
    return nullptr;
  }
  auto opened = checkpoint::Checkpoint::Open(folder);
  return opened.ok() ? std::make_unique<checkpoint::Checkpoint>(*std::move(opened)) : nullptr;
}

// [down, up] of the leading `rank` singular directions.
inline std::pair<at::Tensor, at::Tensor> Truncated(const at::Tensor& weight, int64_t rank) {
  const auto [u, s, v] = at::linalg_svd(weight.to(at::kDouble), /*full_matrices=*/false);
  return {(s.narrow(0, 0, rank).unsqueeze(1) * v.narrow(0, 0, rank)).to(at::kFloat).contiguous(),
          u.narrow(1, 0, rank).to(at::kFloat).contiguous()};
}

// Plain SVD to `rank` of each layer; layer 1 of separate latents keeps its keys dense. With
// `attention` the query and output projections too, as they are.
inline std::vector<TrainableWeights> TinyFactors(const checkpoint::Checkpoint& checkpoint,
                                                 bool joint, int64_t rank, bool attention = false) {
  const model::WeightLoader loader(checkpoint, at::kCPU, at::kFloat);
  std::vector<TrainableWeights> factors;
  for (int64_t layer = 0; layer < checkpoint.config().num_layers; ++layer) {
    const at::Tensor key =
        loader.Tensor(checkpoint::LayerTensor(layer, "self_attn.k_proj.weight"), at::kFloat)
            .value();
    const at::Tensor value =
        loader.Tensor(checkpoint::LayerTensor(layer, "self_attn.v_proj.weight"), at::kFloat)
            .value();
    TrainableWeights latents;
    if (joint) {
      const auto [down, up] = Truncated(at::cat({key, value}), rank);
      const int64_t width = key.size(0);
      latents.kv_down = down;
      latents.k_up = up.narrow(0, 0, width).contiguous();
      latents.v_up = up.narrow(0, width, width).contiguous();
    } else {
      if (layer != 1) std::tie(latents.k_down, latents.k_up) = Truncated(key, rank);
      std::tie(latents.v_down, latents.v_up) = Truncated(value, rank);
    }
    if (attention) {
      const model::LayerWeights weights = loader.Layer(layer).value();
      latents.q = weights.q.weight;
      latents.o = weights.o.weight;
    }
    factors.push_back(latents);
  }
  return factors;
}

}  // namespace latentforge::finetune
