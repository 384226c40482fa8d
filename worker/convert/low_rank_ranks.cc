#include "worker/convert/low_rank_ranks.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/rank_rule.h"
#include "worker/convert/error_reason.h"
#include "worker/low_rank/parameter_allocation.h"

namespace latentforge::convert {

using checkpoint::LinearRanks;

absl::StatusOr<LinearRanks> UniformRanks(const checkpoint::ModelConfig& config,
                                         const LowRankSpec& spec) {
  LinearRanks ranks;
  for (const checkpoint::LinearMap& map : checkpoint::LinearMaps(config)) {
    if (!map.present()) continue;
    const absl::StatusOr<int64_t> rank =
        checkpoint::RankForRatio(spec.layout, map.out, map.in, spec.ratio, spec.rank_multiple);
    if (!rank.ok()) {
      return WithReason(Annotate(rank.status(), map.module), "RANK_OUT_OF_RANGE");
    }
    const int64_t parameters = checkpoint::Parameters(spec.layout, map.out, map.in, *rank);
    ranks.*map.rank = parameters < map.weights() ? *rank : 0;
  }
  return ranks;
}

absl::Status CheckLowRanks(const checkpoint::ModelConfig& config, const LowRankSpec& spec) {
  if (!spec.global_ranks) return UniformRanks(config, spec).status();
  int64_t least = 0;
  int64_t whole = 0;
  for (const checkpoint::LinearMap& map : checkpoint::LinearMaps(config)) {
    if (!map.present()) continue;
    const int64_t smallest =
        checkpoint::Parameters(spec.layout, map.out, map.in, spec.rank_multiple);
    const bool fits = spec.rank_multiple <= std::min(map.out, map.in);
    least += fits ? std::min(smallest, map.weights()) : map.weights();
    whole += map.weights();
  }
  const double largest = 1 - double(least) / double(whole);
  if (spec.ratio <= largest) return absl::OkStatus();
  return WithReason(
      absl::OutOfRangeError(absl::StrCat("ratio is ", spec.ratio, ", expected at most ", largest,
                                         ", which leaves every map the rank ", spec.rank_multiple)),
      "RANK_OUT_OF_RANGE");
}

absl::StatusOr<std::vector<LinearRanks>> GlobalRanks(
    const checkpoint::ModelConfig& config, const LowRankSpec& spec,
    const std::vector<std::array<std::vector<double>, kLinearMaps>>& spectra) {
  const auto table = checkpoint::LinearMaps(config);
  std::vector<low_rank::CompressibleMatrix> matrices;
  std::vector<std::pair<size_t, size_t>> places;  // layer and map of each
  for (size_t layer = 0; layer < spectra.size(); ++layer) {
    for (size_t map = 0; map < kLinearMaps; ++map) {
      if (!table[map].present()) continue;
      places.emplace_back(layer, map);
      matrices.push_back({.out = table[map].out,
                          .in = table[map].in,
                          .spectrum = spectra[layer][map],
                          .rule = spec.layout,
                          .multiple = spec.rank_multiple});
    }
  }
  const absl::StatusOr<low_rank::ParameterAllocation> allocation =
      low_rank::AllocateParameters(matrices, spec.ratio);
  if (!allocation.ok()) {
    return WithReasonByCode(allocation.status(),
                            {{absl::StatusCode::kOutOfRange, "RANK_OUT_OF_RANGE"},
                             {absl::StatusCode::kInvalidArgument, "NUMERICAL_FAILURE"}});
  }
  std::vector<LinearRanks> ranks(spectra.size());
  for (size_t i = 0; i < matrices.size(); ++i) {
    const auto& [layer, map] = places[i];
    ranks[layer].*table[map].rank = allocation->ranks[i].value_or(0);
  }
  return ranks;
}

Json LinearRanksToJson(const checkpoint::ModelConfig& config,
                       const std::vector<LinearRanks>& ranks) {
  Json layers = Json::array();
  for (const LinearRanks& layer : ranks) {
    Json entry = Json::object();
    for (const checkpoint::LinearMap& map : checkpoint::LinearMaps(config)) {
      entry[std::string(map.key)] = layer.*map.rank;
    }
    layers.push_back(std::move(entry));
  }
  return {{"layers", std::move(layers)}};
}

absl::StatusOr<std::vector<LinearRanks>> LinearRanksFromJson(const checkpoint::ModelConfig& config,
                                                             absl::string_view text) {
  LF_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  LF_ASSIGN_OR_RETURN(const JsonObject root, JsonObject::Create(json, "ranks.json"));
  const Json* layers = root.Find("layers");
  if (layers == nullptr || !layers->is_array() || int64_t(layers->size()) != config.num_layers) {
    return root.Wrong("layers", absl::StrCat("a list of ", config.num_layers));
  }
  std::vector<LinearRanks> ranks;
  for (const Json& entry : *layers) {
    LF_ASSIGN_OR_RETURN(
        const JsonObject layer,
        JsonObject::Create(entry, absl::StrCat("ranks.json: layer ", ranks.size())));
    LinearRanks& target = ranks.emplace_back();
    for (const checkpoint::LinearMap& map : checkpoint::LinearMaps(config)) {
      const int64_t most = std::min(map.out, map.in);
      LF_ASSIGN_OR_RETURN(target.*map.rank, layer.IntOr(map.key, 0, most, 0));
    }
  }
  return ranks;
}

}  // namespace latentforge::convert
