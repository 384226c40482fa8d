#include "worker/model/weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/channel_order.h"
#include "checkpoint/context_warning.h"
#include "checkpoint/dtype.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/model/torch_guard.h"

namespace latentforge::model {
namespace {

using checkpoint::Checkpoint;
using checkpoint::DType;
using checkpoint::TensorView;

// Mapped bytes that may be resident while a tensor is copied.
constexpr int64_t kPieceBytes = int64_t{4} << 20;

// Checkpoint::Open has refused every other type.
at::ScalarType ScalarTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return at::kHalf;
    case DType::kBF16:
      return at::kBFloat16;
    default:
      return at::kFloat;
  }
}

// Bytes [begin, begin + size) of `view` as a view of its own.
TensorView SubView(const TensorView& view, int64_t begin, int64_t size) {
  return {view.entry, view.bytes.subspan(static_cast<size_t>(begin), static_cast<size_t>(size))};
}

// Copies the elements of `view` to a flat tensor of any type and device, piece by
// piece. Tensors in a file need not be aligned to their element size.
void CopyElements(const TensorView& view, const at::Tensor& target) {
  const at::ScalarType type = ScalarTypeOf(view.dtype());
  const int64_t width = checkpoint::BytesOf(view.dtype());
  const auto bytes = static_cast<int64_t>(view.bytes.size());
  const int64_t count = bytes / width;
  const auto address = reinterpret_cast<uintptr_t>(view.bytes.data());
  if (address % static_cast<uintptr_t>(width) == 0) {
    // copy_ only reads its source.
    void* const data = const_cast<std::byte*>(view.bytes.data());
    target.copy_(at::from_blob(data, {count}, at::TensorOptions(type)));
    return;
  }
  const at::Tensor aligned = at::empty({count}, at::TensorOptions(type));
  std::memcpy(aligned.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  target.copy_(aligned);
}

// Fills the contiguous tensor `target` with bytes [begin, ...) of `view`, giving
// pages back on the way.
void CopyTensor(const Checkpoint& checkpoint, const TensorView& view, int64_t begin,
                const at::Tensor& target) {
  const int64_t width = checkpoint::BytesOf(view.dtype());
  const at::Tensor flat = target.view({-1});
  const int64_t piece = kPieceBytes / width;
  for (int64_t done = 0; done < flat.numel(); done += piece) {
    const int64_t count = std::min(piece, flat.numel() - done);
    const TensorView part = SubView(view, begin + done * width, count * width);
    CopyElements(part, flat.narrow(0, done, count));
    checkpoint.DropPages(part);
  }
}

absl::StatusOr<at::Tensor> LoadAs(const Checkpoint& checkpoint, absl::string_view name,
                                  const at::TensorOptions& options) {
  LF_ASSIGN_OR_RETURN(const TensorView view, checkpoint.Tensor(name));
  return CatchTorch(
      [&] {
        const at::IntArrayRef shape(view.shape().data(), view.shape().size());
        at::Tensor tensor = at::empty(shape, options);
        CopyTensor(checkpoint, view, 0, tensor);
        checkpoint.DropPages(view);
        return tensor;
      },
      absl::StrCat("loading ", name));
}

absl::string_view HeadName(const checkpoint::ModelConfig& config) {
  return config.tie_word_embeddings ? checkpoint::kEmbedTokens : checkpoint::kLmHead;
}

}  // namespace

void SplitGateUp(LayerWeights& weights) {
  if (!weights.gate_up.defined()) return;
  const auto half = [](const at::Tensor& both, int64_t index) {
    return both.defined() ? both.chunk(2)[static_cast<size_t>(index)] : at::Tensor();
  };
  const Projection& both = weights.gate_up;
  weights.gate = {.weight = half(both.weight, 0), .bias = half(both.bias, 0)};
  weights.up = {.weight = half(both.weight, 1), .bias = half(both.bias, 1)};
  weights.gate_up = {};
}

absl::StatusOr<at::Tensor> WeightLoader::Tensor(absl::string_view name,
                                                at::ScalarType dtype) const {
  return LoadAs(*checkpoint_, name, at::TensorOptions(dtype));
}

absl::StatusOr<at::Tensor> WeightLoader::Load(absl::string_view name) const {
  LF_ASSIGN_OR_RETURN(const at::Tensor tensor,
                      LoadAs(*checkpoint_, name, at::TensorOptions(dtype_).device(device_)));
  return CatchTorch([&] { return AsStored(tensor); }, absl::StrCat("rounding ", name));
}

absl::StatusOr<at::Tensor> WeightLoader::LoadRows(absl::string_view name, int64_t begin,
                                                  int64_t end) const {
  LF_ASSIGN_OR_RETURN(const TensorView view, checkpoint_->Tensor(name));
  return CatchTorch(
      [&] {
        const int64_t width = view.shape()[1];
        const at::Tensor rows =
            at::empty({end - begin, width}, at::TensorOptions(dtype_).device(device_));
        CopyTensor(*checkpoint_, view, begin * width * checkpoint::BytesOf(view.dtype()), rows);
        return AsStored(rows);
      },
      absl::StrCat("loading rows of ", name));
}

at::Tensor WeightLoader::AsStored(const at::Tensor& tensor) const {
  return stored_ ? tensor.to(*stored_).to(tensor.scalar_type()) : tensor;
}

absl::StatusOr<Norm> WeightLoader::LoadNorm(const std::string& module) const {
  Norm norm;
  LF_ASSIGN_OR_RETURN(norm.weight, Load(absl::StrCat(module, ".weight")));
  if (config().norm == checkpoint::NormKind::kLayer) {
    LF_ASSIGN_OR_RETURN(norm.bias, Load(absl::StrCat(module, ".bias")));
  }
  return norm;
}

absl::StatusOr<Projection> WeightLoader::LoadMap(int64_t layer,
                                                 const checkpoint::LinearMap& map) const {
  const std::string module = checkpoint::LayerTensor(layer, map.module);
  const int64_t rank = checkpoint::RankOf(config(), layer, map);
  Projection projection;
  if (rank > 0) {
    LF_ASSIGN_OR_RETURN(projection.down, LoadDown(module));
    LF_ASSIGN_OR_RETURN(projection.up, Load(absl::StrCat(module, ".up.weight")));
  } else {
    LF_ASSIGN_OR_RETURN(projection.weight, Load(absl::StrCat(module, ".weight")));
  }
  if (checkpoint::HasBias(config(), map, rank)) {
    LF_ASSIGN_OR_RETURN(projection.bias,
                        Load(absl::StrCat(module, rank > 0 ? ".up.bias" : ".bias")));
  }
  return projection;
}

absl::StatusOr<at::Tensor> WeightLoader::LoadDown(const std::string& module) const {
  LF_ASSIGN_OR_RETURN(const at::Tensor stored, Load(absl::StrCat(module, ".down.weight")));
  if (!config().low_rank->block_identity) return stored;
  LF_ASSIGN_OR_RETURN(const TensorView view, checkpoint_->Tensor(absl::StrCat(module, ".order")));
  const absl::StatusOr<std::vector<int64_t>> order = checkpoint::ReadOrder(view);
  checkpoint_->DropPages(view);
  if (!order.ok()) return Annotate(order.status(), checkpoint_->dir().string());
  return CatchTorch([&] { return WithIdentity(stored, at::tensor(*order).to(device_)); },
                    absl::StrCat("loading ", module));
}

absl::StatusOr<Projection> WeightLoader::LoadLatent(int64_t layer, absl::string_view down,
                                                    absl::string_view up) const {
  Projection projection;
  LF_ASSIGN_OR_RETURN(projection.down,
                      Load(checkpoint::LayerTensor(layer, absl::StrCat(down, ".weight"))));
  LF_ASSIGN_OR_RETURN(projection.up,
                      Load(checkpoint::LayerTensor(layer, absl::StrCat(up, ".weight"))));
  if (config().qkv_bias) {
    LF_ASSIGN_OR_RETURN(projection.bias,
                        Load(checkpoint::LayerTensor(layer, absl::StrCat(up, ".bias"))));
  }
  return projection;
}

absl::Status WeightLoader::LoadKeyValue(int64_t layer, const checkpoint::LinearMap& k,
                                        const checkpoint::LinearMap& v,
                                        LayerWeights& weights) const {
  constexpr char kUpK[] = "self_attn.k_up_proj";
  constexpr char kUpV[] = "self_attn.v_up_proj";
  const checkpoint::ModelConfig& model = config();
  const int64_t width = model.kv_width();
  checkpoint::LayerRanks ranks = {.k = width, .v = width, .joint = 0};
  if (model.latent.has_value()) ranks = model.latent->ranks[static_cast<size_t>(layer)];
  const bool joint = model.latent.has_value() && model.latent->joint;

  if (joint && ranks.joint < 2 * width) {
    LF_ASSIGN_OR_RETURN(weights.k, LoadLatent(layer, "self_attn.kv_down_proj", kUpK));
    LF_ASSIGN_OR_RETURN(weights.v, LoadLatent(layer, "self_attn.kv_down_proj", kUpV));
    weights.v.down = weights.k.down;
    return absl::OkStatus();
  }
  if (!joint && ranks.k < width) {
    LF_ASSIGN_OR_RETURN(weights.k, LoadLatent(layer, "self_attn.k_down_proj", kUpK));
  } else {
    LF_ASSIGN_OR_RETURN(weights.k, LoadMap(layer, k));
  }
  if (!joint && ranks.v < width) {
    LF_ASSIGN_OR_RETURN(weights.v, LoadLatent(layer, "self_attn.v_down_proj", kUpV));
  } else {
    LF_ASSIGN_OR_RETURN(weights.v, LoadMap(layer, v));
  }
  return absl::OkStatus();
}

absl::Status WeightLoader::LoadInner(int64_t layer, const checkpoint::LinearMap& gate,
                                     const checkpoint::LinearMap& up, LayerWeights& weights) const {
  const bool dense = checkpoint::RankOf(config(), layer, gate) == 0 &&
                     checkpoint::RankOf(config(), layer, up) == 0;
  if (dense && gate.present()) {
    LF_ASSIGN_OR_RETURN(weights.gate_up, LoadGateUp(layer));
    return absl::OkStatus();
  }
  if (gate.present()) {
    LF_ASSIGN_OR_RETURN(weights.gate, LoadMap(layer, gate));
  }
  LF_ASSIGN_OR_RETURN(weights.up, LoadMap(layer, up));
  return absl::OkStatus();
}

absl::StatusOr<Projection> WeightLoader::LoadGateUp(int64_t layer) const {
  const std::string gate = checkpoint::LayerTensor(layer, "mlp.gate_proj");
  const std::string up = checkpoint::LayerTensor(layer, "mlp.up_proj");
  Projection projection;
  LF_ASSIGN_OR_RETURN(const TensorView gate_view,
                      checkpoint_->Tensor(absl::StrCat(gate, ".weight")));
  LF_ASSIGN_OR_RETURN(const TensorView up_view, checkpoint_->Tensor(absl::StrCat(up, ".weight")));
  const int64_t width = config().intermediate_size;
  // Both go straight into one tensor: the MLP is most of a layer.
  LF_ASSIGN_OR_RETURN(projection.weight,
                      CatchTorch(
                          [&] {
                            at::Tensor both = at::empty({2 * width, config().hidden_size},
                                                        at::TensorOptions(dtype_).device(device_));
                            CopyTensor(*checkpoint_, gate_view, 0, both.narrow(0, 0, width));
                            CopyTensor(*checkpoint_, up_view, 0, both.narrow(0, width, width));
                            checkpoint_->DropPages(gate_view);
                            checkpoint_->DropPages(up_view);
                            return AsStored(both);
                          },
                          absl::StrCat("loading ", gate, " and ", up)));
  if (config().mlp_bias) {
    LF_ASSIGN_OR_RETURN(const at::Tensor gate_bias, Load(absl::StrCat(gate, ".bias")));
    LF_ASSIGN_OR_RETURN(const at::Tensor up_bias, Load(absl::StrCat(up, ".bias")));
    LF_ASSIGN_OR_RETURN(projection.bias, CatchTorch(
                                             [&] {
                                               return at::cat({gate_bias, up_bias});
                                             },
                                             gate));
  }
  return projection;
}

absl::StatusOr<LayerWeights> WeightLoader::Layer(int64_t layer) const {
  if (layer < 0 || layer >= config().num_layers) {
    return absl::OutOfRangeError(
        absl::StrCat("layer ", layer, " of a model with layers 0 to ", config().num_layers - 1));
  }
  const auto name = [layer](absl::string_view suffix) {
    return checkpoint::LayerTensor(layer, suffix);
  };
  const auto [q, k, v, o, gate, up, down] = checkpoint::LinearMaps(config());
  LayerWeights weights;
  weights.layer = layer;
  LF_ASSIGN_OR_RETURN(weights.input_norm, LoadNorm(name("input_layernorm")));
  LF_ASSIGN_OR_RETURN(weights.post_attention_norm, LoadNorm(name("post_attention_layernorm")));
  if (config().qk_norm) {
    LF_ASSIGN_OR_RETURN(weights.q_norm, Load(name("self_attn.q_norm.weight")));
    LF_ASSIGN_OR_RETURN(weights.k_norm, Load(name("self_attn.k_norm.weight")));
  }
  LF_ASSIGN_OR_RETURN(weights.q, LoadMap(layer, q));
  LF_RETURN_IF_ERROR(LoadKeyValue(layer, k, v, weights));
  LF_ASSIGN_OR_RETURN(weights.o, LoadMap(layer, o));
  LF_RETURN_IF_ERROR(LoadInner(layer, gate, up, weights));
  LF_ASSIGN_OR_RETURN(weights.mlp_down, LoadMap(layer, down));
  return weights;
}

absl::StatusOr<at::Tensor> WeightLoader::Embed(absl::Span<const int32_t> ids,
                                               int64_t length) const {
  if (length < 1 || static_cast<int64_t>(ids.size()) % length != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(ids.size(), " tokens are no whole sequences of ", length));
  }
  LF_RETURN_IF_ERROR(checkpoint::CheckContext(config(), "sequences", length));
  LF_ASSIGN_OR_RETURN(at::Tensor rows, EmbedTokens(ids));
  if (config().projects_embeddings()) {
    LF_ASSIGN_OR_RETURN(const at::Tensor projection, Load(checkpoint::kProjectIn));
    LF_ASSIGN_OR_RETURN(rows, CatchTorch([&] { return rows.mm(projection.t()); }, "embeddings"));
  }
  if (config().rotary()) return rows;
  constexpr int64_t kFirst = checkpoint::kPositionOffset;
  LF_ASSIGN_OR_RETURN(const at::Tensor positions,
                      LoadRows(checkpoint::kEmbedPositions, kFirst, kFirst + length));
  return CatchTorch(
      [&] {
        rows.view({-1, length, config().hidden_size}).add_(positions);
        return rows;
      },
      "embeddings of positions");
}

absl::StatusOr<at::Tensor> WeightLoader::EmbedTokens(absl::Span<const int32_t> ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= config().vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", i, " is ", ids[i], ", expected 0 to ", config().vocab_size - 1));
    }
  }
  LF_ASSIGN_OR_RETURN(const TensorView view, checkpoint_->Tensor(checkpoint::kEmbedTokens));
  // In order of the ids, so that pages can be given back on the way.
  std::vector<size_t> order(ids.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ids[a] < ids[b]; });
  const int64_t width = config().embedding_size;
  const int64_t row_bytes = width * checkpoint::BytesOf(view.dtype());
  return CatchTorch(
      [&] {
        const at::Tensor rows = at::empty({static_cast<int64_t>(ids.size()), width},
                                          at::TensorOptions(ScalarTypeOf(view.dtype())));
        auto* const target = static_cast<std::byte*>(rows.mutable_data_ptr());
        int64_t dropped = 0;  // bytes before this are no longer resident
        for (const size_t i : order) {
          const int64_t begin = ids[i] * row_bytes;
          std::memcpy(target + static_cast<int64_t>(i) * row_bytes, view.bytes.data() + begin,
                      static_cast<size_t>(row_bytes));
          if (begin - dropped > kPieceBytes) {
            checkpoint_->DropPages(SubView(view, dropped, begin - dropped));
            dropped = begin;
          }
        }
        checkpoint_->DropPages(view);
        return AsStored(rows.to(device_, dtype_));
      },
      "looking up embeddings");
}

absl::StatusOr<Norm> WeightLoader::FinalNorm() const {
  return config().norm_before ? LoadNorm(checkpoint::kFinalNorm) : Norm();
}

absl::StatusOr<at::Tensor> WeightLoader::LmHeadRows(int64_t begin, int64_t end) const {
  if (begin < 0 || begin > end || end > config().vocab_size) {
    return absl::OutOfRangeError(
        absl::StrCat("rows ", begin, " to ", end, " of an output head with ", config().vocab_size));
  }
  LF_ASSIGN_OR_RETURN(const at::Tensor rows, LoadRows(HeadName(config()), begin, end));
  if (!config().projects_embeddings()) return rows;
  LF_ASSIGN_OR_RETURN(const at::Tensor projection, Load(checkpoint::kProjectOut));
  return CatchTorch([&] { return rows.mm(projection); }, "rows of the output head");
}

}  // namespace latentforge::model
