// The trainable matrices of one converted layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <utility>

#include "worker/model/weights.h"

namespace latentforge::finetune {

// K = up_K · down · x and V = up_V · down · x. One down for both (kv_down) or one each;
// a projection that stays dense has none of its two. m rows of K and of V, D of x.
struct LatentFactors {
  at::Tensor kv_down;         // [r, D]
  at::Tensor k_down, v_down;  // [r_K, D], [r_V, D]
  at::Tensor k_up, v_up;      // [m, r_K], [m, r_V]; joint: [m, r]

  // All five with their names, some undefined.
  std::array<std::pair<const char*, at::Tensor*>, 5> Named() {
    return {{{"kv_down", &kv_down},
             {"k_down", &k_down},
             {"v_down", &v_down},
             {"k_up", &k_up},
             {"v_up", &v_up}}};
  }
  std::array<std::pair<const char*, const at::Tensor*>, 5> Named() const {
    return {{{"kv_down", &kv_down},
             {"k_down", &k_down},
             {"v_down", &v_down},
             {"k_up", &k_up},
             {"v_up", &v_up}}};
  }

  const at::Tensor& KeyDown() const { return kv_down.defined() ? kv_down : k_down; }
  const at::Tensor& ValueDown() const { return kv_down.defined() ? kv_down : v_down; }
};

// The same matrices, each put through f where it is defined.
template <typename F>
LatentFactors Map(const LatentFactors& factors, const F& f) {
  LatentFactors result;
  const auto from = factors.Named();
  const auto to = result.Named();
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i].second->defined()) *to[i].second = f(*from[i].second);
  }
  return result;
}

// The layer with latents instead of its dense projections, where it has some. A joint latent stays
// one tensor: the decoder computes it once.
inline model::LayerWeights WithLatents(model::LayerWeights weights, const LatentFactors& factors) {
  weights.k.Replace(factors.KeyDown(), factors.k_up);
  weights.v.Replace(factors.ValueDown(), factors.v_up);
  return weights;
}

}  // namespace latentforge::finetune
