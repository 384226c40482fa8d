#include "worker/export/converted_layer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace latentforge::exporter {
namespace {

// ".order", ".down.weight", … of one map.
const at::Tensor* FindInMap(const LowRankMap& map, absl::string_view part) {
  if (part == ".order") return &map.order;
  if (part == ".down.weight") return &map.down;
  if (part == ".up.weight") return &map.up;
  if (part == ".up.bias" && map.bias.defined()) return &map.bias;
  return nullptr;
}

const at::Tensor* FindLowRank(const LowRankLayer& layer, absl::string_view suffix) {
  const std::pair<absl::string_view, const LowRankMap*> maps[] = {
      {"self_attn.q_proj", &layer.q}, {"self_attn.k_proj", &layer.k},
      {"self_attn.v_proj", &layer.v}, {"self_attn.o_proj", &layer.o},
      {"mlp.gate_proj", &layer.gate}, {"mlp.up_proj", &layer.up},
      {"mlp.down_proj", &layer.down}};
  for (const auto& [module, map] : maps) {
    absl::string_view part = suffix;
    if (absl::ConsumePrefix(&part, module)) return FindInMap(*map, part);
  }
  return nullptr;
}

}  // namespace

const at::Tensor* FindConverted(const ConvertedLayer& layer, absl::string_view suffix) {
  const std::pair<absl::string_view, const at::Tensor*> factors[] = {
      {"self_attn.k_down_proj.weight", &layer.k_down},
      {"self_attn.v_down_proj.weight", &layer.v_down},
      {"self_attn.kv_down_proj.weight", &layer.kv_down},
      {"self_attn.k_up_proj.weight", &layer.k_up},
      {"self_attn.v_up_proj.weight", &layer.v_up}};
  for (const auto& [name, tensor] : factors) {
    if (name == suffix) return tensor;
  }
  if (suffix == "self_attn.q_proj.weight" && layer.q.defined()) return &layer.q;
  if (suffix == "self_attn.o_proj.weight" && layer.o.defined()) return &layer.o;
  return FindLowRank(layer.low_rank, suffix);
}

std::string SourceSuffix(absl::string_view suffix) {
  if (suffix == "self_attn.k_up_proj.bias") return "self_attn.k_proj.bias";
  if (suffix == "self_attn.v_up_proj.bias") return "self_attn.v_proj.bias";
  if (absl::ConsumeSuffix(&suffix, ".up.bias")) return absl::StrCat(suffix, ".bias");
  return std::string(suffix);
}

}  // namespace latentforge::exporter
