// The matrices of one converted layer that healing trains.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <utility>

#include "worker/model/weights.h"

namespace latentforge::finetune {

// K = up_K · down · x and V = up_V · down · x. One down for both (kv_down) or one each;
// a projection that stays dense has none of its two. m rows of K and of V, D of x. Query and
// output projection are absent where they stay the original's.
struct TrainableWeights {
  static constexpr size_t kCount = 7;
  template <typename T>
  using NamedPointers = std::array<std::pair<const char*, T*>, kCount>;

  at::Tensor kv_down;         // [r, D]
  at::Tensor k_down, v_down;  // [r_K, D], [r_V, D]
  at::Tensor k_up, v_up;      // [m, r_K], [m, r_V]; joint: [m, r]
  at::Tensor q;               // [heads * d, D]
  at::Tensor o;               // [D, heads * d]

  // All with their names, some undefined.
  NamedPointers<at::Tensor> Named() { return NamedOf<at::Tensor>(*this); }
  NamedPointers<const at::Tensor> Named() const { return NamedOf<const at::Tensor>(*this); }

  const at::Tensor& KeyDown() const { return kv_down.defined() ? kv_down : k_down; }
  const at::Tensor& ValueDown() const { return kv_down.defined() ? kv_down : v_down; }

 private:
  template <typename T, typename Self>
  static NamedPointers<T> NamedOf(Self& self) {
    return {{{"kv_down", &self.kv_down},
             {"k_down", &self.k_down},
             {"v_down", &self.v_down},
             {"k_up", &self.k_up},
             {"v_up", &self.v_up},
             {"q", &self.q},
             {"o", &self.o}}};
  }
};

// The same matrices, each put through f where it is defined.
template <typename F>
TrainableWeights Map(const TrainableWeights& weights, const F& f) {
  TrainableWeights result;
  const auto from = weights.Named();
  const auto to = result.Named();
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i].second->defined()) *to[i].second = f(*from[i].second);
  }
  return result;
}

// The layer with these matrices instead of its own, where there are some. A joint latent stays
// one tensor: the decoder computes it once.
inline model::LayerWeights WithTrained(model::LayerWeights weights,
                                       const TrainableWeights& trained) {
  weights.k.Replace(trained.KeyDown(), trained.k_up);
  weights.v.Replace(trained.ValueDown(), trained.v_up);
  if (trained.q.defined()) weights.q.weight = trained.q;
  if (trained.o.defined()) weights.o.weight = trained.o;
  return weights;
}

}  // namespace latentforge::finetune
