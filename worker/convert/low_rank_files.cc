#include "worker/convert/low_rank_files.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/convert/error_reason.h"
#include "worker/export/tensor_cast.h"
#include "worker/model/weights.h"

namespace latentforge::convert {
namespace {

using exporter::LowRankLayer;
using exporter::LowRankMap;

// f(key, map) for every map of a layer, which may be const.
template <typename Layer, typename F>
void EachMap(Layer& layer, const F& f) {
  f("q", layer.q);
  f("k", layer.k);
  f("v", layer.v);
  f("o", layer.o);
  f("gate", layer.gate);
  f("up", layer.up);
  f("down", layer.down);
}

}  // namespace

absl::StatusOr<LayerMaps> LoadMaps(const checkpoint::Checkpoint& checkpoint, int64_t layer) {
  const model::WeightLoader loader(checkpoint, at::kCPU, at::kDouble);
  const auto load = [&](absl::string_view suffix) {
    return loader.Tensor(checkpoint::LayerTensor(layer, suffix), at::kDouble);
  };
  LayerMaps result;
  const auto table = checkpoint::LinearMaps(checkpoint.config());
  for (size_t i = 0; i < kLinearMaps; ++i) {
    if (!table[i].present()) continue;
    LF_ASSIGN_OR_RETURN(result.maps[i].weight, load(absl::StrCat(table[i].module, ".weight")));
    if (!table[i].source_bias) continue;
    LF_ASSIGN_OR_RETURN(result.maps[i].bias, load(absl::StrCat(table[i].module, ".bias")));
  }
  if (!checkpoint.config().qk_norm) return result;
  LF_ASSIGN_OR_RETURN(result.q_norm, load("self_attn.q_norm.weight"));
  LF_ASSIGN_OR_RETURN(result.k_norm, load("self_attn.k_norm.weight"));
  return result;
}

absl::Status SaveLowRankLayer(const std::filesystem::path& path, const CompressedLayer& layer,
                              checkpoint::DType dtype) {
  NamedTensors tensors;
  absl::Status status;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    if (!tensor.defined() || !status.ok()) return;
    const absl::StatusOr<at::Tensor> cast = exporter::CastTensor(tensor, dtype, name);
    status.Update(cast.status());
    if (cast.ok()) tensors.emplace_back(name, *cast);
  };
  EachMap(layer.factors, [&](const std::string& key, const LowRankMap& map) {
    // Files hold floating-point numbers, which are exact for indices.
    if (map.order.defined()) tensors.emplace_back(key + ".order", map.order.to(at::kDouble));
    add(key + ".down", map.down);
    add(key + ".up", map.up);
    add(key + ".bias", map.bias);
  });
  LF_RETURN_IF_ERROR(status);
  const at::Tensor errors = at::empty({int64_t(kLinearMaps)}, at::kDouble);
  for (size_t i = 0; i < kLinearMaps; ++i) errors[int64_t(i)].fill_(layer.errors[i]);
  tensors.emplace_back("errors", errors);
  return SaveTensors(path, tensors);
}

LowRankLayer LowRankLayerOf(TensorMap& tensors) {
  LowRankLayer layer;
  EachMap(layer, [&](const std::string& key, LowRankMap& map) {
    const at::Tensor order = tensors[key + ".order"];
    map = {.order = order.defined() ? order.to(at::kInt) : order,
           .down = tensors[key + ".down"],
           .up = tensors[key + ".up"],
           .bias = tensors[key + ".bias"]};
  });
  return layer;
}

absl::StatusOr<std::array<double, kLinearMaps>> LoadLowRankErrors(
    const std::filesystem::path& path) {
  LF_ASSIGN_OR_RETURN(TensorMap tensors, LoadTensors(path));
  const at::Tensor stored = tensors["errors"];
  if (!stored.defined() || stored.numel() != int64_t(kLinearMaps)) {
    return RemoveDamaged(path, absl::StrCat(path.string(), " lacks its errors"));
  }
  std::array<double, kLinearMaps> errors = {};
  for (size_t i = 0; i < kLinearMaps; ++i) errors[i] = stored[int64_t(i)].item<double>();
  return errors;
}

}  // namespace latentforge::convert
