// How the method low_rank compresses: latentforge.v1.LowRankSpec, with what it reads of
// FactorizationSpec and BudgetSpec, as plain values.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/conversion_defaults.h"
#include "base/json.h"
#include "checkpoint/rank_rule.h"
#include "worker/factorize/preconditioner.h"

namespace latentforge::convert {

enum class MlpCompression { kLocal, kAlternation, kOutputMetric };

struct LowRankSpec {
  double ratio = 0;  // of the parameters of linear maps that goes, in (0, 1)
  checkpoint::RankRule layout = checkpoint::RankRule::kBlockIdentity;
  // Errors of outputs count by their Fisher information, those of inputs by root-covariance; or
  // by a preconditioner of the input alone.
  bool loss_aware = true;
  factorize::PreconditionerOptions preconditioner = {.damping = kDefaultDamping};
  bool literal_hessian = false;
  bool global_ranks = true;  // the least predicted loss, instead of one ratio for every map
  int64_t rank_multiple = 1;
  bool joint_query_key = false;
  bool joint_value_output = false;
  MlpCompression mlp = MlpCompression::kLocal;
  bool bias_update = false;
  bool compressed_activations = false;  // what the compressed layers before give
};

// Reads the members "budget", "factorization" and "lowRank" of `job` and fills in defaults.
// InvalidArgument names the key, the value and what was expected.
absl::StatusOr<LowRankSpec> ParseLowRankSpec(const JsonObject& job);

// The members that ParseLowRankSpec reads, with defaults filled in, added to `job`.
void AddLowRankSpec(const LowRankSpec& spec, Json& job);

}  // namespace latentforge::convert
