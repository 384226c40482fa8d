// Which rank each linear map gets.
#pragma once

#include <array>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "checkpoint/linear_maps.h"
#include "checkpoint/model_config.h"
#include "worker/convert/low_rank_layer.h"
#include "worker/convert/low_rank_spec.h"

namespace latentforge::convert {

// The same share of every map; 0, dense, where factors would be no smaller than the map. OutOfRange
// RANK_OUT_OF_RANGE names the map for which no rank leaves so little, and the largest ratio that
// one can.
absl::StatusOr<checkpoint::LinearRanks> UniformRanks(const checkpoint::ModelConfig& config,
                                                     const LowRankSpec& spec);

// Before there are statistics: OutOfRange RANK_OUT_OF_RANGE where no ranks are within the ratio, of
// each map or, with global ranks, of all of them.
absl::Status CheckLowRanks(const checkpoint::ModelConfig& config, const LowRankSpec& spec);

// Ranks of every layer with the least predicted loss within the same share of all parameters.
// `spectra` are those of MapSpectra, by layer. OutOfRange RANK_OUT_OF_RANGE as above.
absl::StatusOr<std::vector<checkpoint::LinearRanks>> GlobalRanks(
    const checkpoint::ModelConfig& config, const LowRankSpec& spec,
    const std::vector<std::array<std::vector<double>, kLinearMaps>>& spectra);

// ranks.json: {"layers": [{"q": 100, …}, …]}.
Json LinearRanksToJson(const checkpoint::ModelConfig& config,
                       const std::vector<checkpoint::LinearRanks>& ranks);

// InvalidArgument names the layer and the map whose rank is none for `config`.
absl::StatusOr<std::vector<checkpoint::LinearRanks>> LinearRanksFromJson(
    const checkpoint::ModelConfig& config, absl::string_view text);

}  // namespace latentforge::convert
