#include "worker/convert/layer_conversion.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/convert/healing_files.h"
#include "worker/finetune/trainable_weights.h"
#include "worker/model/torch_guard.h"

namespace latentforge::convert {
namespace {

// A tensor as it comes back after it was stored in the output's format.
void Round(at::Tensor& tensor, at::ScalarType stored) {
  if (tensor.defined()) tensor = tensor.to(stored).to(tensor.scalar_type());
}

void RoundAll(model::LayerWeights& weights, at::ScalarType stored) {
  for (model::Norm* norm : {&weights.input_norm, &weights.post_attention_norm}) {
    Round(norm->weight, stored);
    Round(norm->bias, stored);
  }
  Round(weights.q_norm, stored);
  Round(weights.k_norm, stored);
  for (model::Projection* projection :
       {&weights.q, &weights.k, &weights.v, &weights.o, &weights.gate_up, &weights.gate,
        &weights.up, &weights.mlp_down}) {
    Round(projection->weight, stored);
    Round(projection->bias, stored);
  }
}

void ReplaceMap(const exporter::LowRankMap& map, const at::TensorOptions& options,
                model::Projection& projection) {
  if (!map.up.defined()) return;
  const at::Tensor down = map.down.to(options);
  projection.Replace(map.order.defined()
                         ? model::WithIdentity(down, map.order.to(down.device(), at::kLong))
                         : down,
                     map.up.to(options));
  if (map.bias.defined()) projection.bias = map.bias.to(options);
}

void ReplaceMaps(const exporter::LowRankLayer& maps, const at::TensorOptions& options,
                 model::LayerWeights& weights) {
  ReplaceMap(maps.q, options, weights.q);
  ReplaceMap(maps.k, options, weights.k);
  ReplaceMap(maps.v, options, weights.v);
  ReplaceMap(maps.o, options, weights.o);
  if (maps.gate.up.defined() || maps.up.up.defined()) model::SplitGateUp(weights);
  ReplaceMap(maps.gate, options, weights.gate);
  ReplaceMap(maps.up, options, weights.up);
  ReplaceMap(maps.down, options, weights.mlp_down);
}

}  // namespace

std::optional<at::ScalarType> RoundedType(const Inputs& inputs) {
  if (inputs.output_dtype == inputs.source_dtype) return std::nullopt;
  if (inputs.output_dtype == checkpoint::DType::kF16) return at::kHalf;
  return inputs.output_dtype == checkpoint::DType::kBF16 ? at::kBFloat16 : at::kFloat;
}

absl::Status ConvertLayer(const Inputs& inputs, const exporter::ConvertedLayer& factors,
                          model::LayerWeights& weights) {
  return model::CatchTorch(
      [&] {
        if (const auto rounded = RoundedType(inputs)) RoundAll(weights, *rounded);
        const at::TensorOptions options = weights.input_norm.weight.options();
        weights = finetune::WithTrained(
            std::move(weights), finetune::Map(ToTrainableWeights(factors),
                                              [&](const at::Tensor& x) { return x.to(options); }));
        ReplaceMaps(factors.low_rank, options, weights);
      },
      absl::StrCat("layer ", weights.layer));
}

}  // namespace latentforge::convert
