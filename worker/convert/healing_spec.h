// How a conversion is healed: latentforge.v1.HealingSpec as plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "base/conversion_defaults.h"
#include "base/json.h"
#include "worker/convert/corpus_spec.h"
#include "worker/finetune/matrix_slot.h"

namespace latentforge::convert {

struct HealingSpec {
  int64_t tokens = kDefaultHealingTokens;
  int64_t sequence_length = kDefaultHealingSequenceLength;
  int64_t batch_sequences = kDefaultHealingBatch;
  double learning_rate = 0;  // 0: finetune::HealingOptions decides
  int64_t warmup_steps = kDefaultHealingWarmupSteps;
  double weight_decay = 0;
  double attention_loss = 0;
  int64_t evaluate_every = kDefaultHealingEvaluateEvery;
  std::vector<CorpusSpec> corpora;  // empty: the calibration's
  bool attention = true;            // trains the query and output projections too
  finetune::Optimizer optimizer = finetune::Optimizer::kMuon;
};

// Reads the member "healing" of `job` and fills in defaults; nullopt when it is
// absent. InvalidArgument names the key, the value and what was expected.
absl::StatusOr<std::optional<HealingSpec>> ParseHealingSpec(const JsonObject& job);

// The specification with defaults filled in.
Json HealingSpecToJson(const HealingSpec& spec);

}  // namespace latentforge::convert
