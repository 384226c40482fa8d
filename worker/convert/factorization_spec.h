// How projections are factorised: latentforge.v1.FactorizationSpec as plain values.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "base/conversion_defaults.h"
#include "base/json.h"
#include "worker/factorize/loss_decomposition.h"
#include "worker/factorize/preconditioner.h"
#include "worker/factorize/rank_allocation.h"

namespace latentforge::convert {

struct FactorizationSpec {
  // With the Fisher information (loss_metric), or by a preconditioner of the input.
  bool loss_aware = true;
  factorize::LossMetricOptions loss_metric;
  factorize::PreconditionerOptions preconditioner;
  bool joint = true;  // one latent for K and V instead of one each
  int64_t rank_multiple = 1;
  bool anchored = false;  // each layer against what the converted ones before it feed it
  // Absent where rank_profile says it all.
  std::optional<factorize::RankAllocation> allocation = factorize::RankAllocation::kGlobal;
  factorize::RankProfile rank_profile;  // empty unless given
};

// Reads the member "factorization" of `job` and fills in defaults: the Fisher
// information, a joint latent and global ranks; with another preconditioner two
// latents and uniform ranks. InvalidArgument names the key, the value and what was
// expected, also where two settings do not go together; OutOfRange a rank profile
// whose layers are not 0, 1, 2, ….
absl::StatusOr<FactorizationSpec> ParseFactorizationSpec(const JsonObject& job);

// The specification with defaults filled in.
Json FactorizationSpecToJson(const FactorizationSpec& spec);

// One entry of RankProfile.layers.
Json LayerRanksToJson(int64_t layer, const factorize::LayerRanks& ranks);

}  // namespace latentforge::convert
