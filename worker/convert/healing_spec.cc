#include "worker/convert/healing_spec.h"

#include <array>
#include <limits>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "worker/convert/proto_json.h"

namespace latentforge::convert {
namespace {

constexpr std::array<std::pair<const char*, bool>, 3> kWeights = {{
    {"HEALED_WEIGHTS_UNSPECIFIED", true},
    {"HEALED_WEIGHTS_LATENTS", false},
    {"HEALED_WEIGHTS_ATTENTION", true},
}};

constexpr std::array<std::pair<const char*, finetune::Optimizer>, 3> kOptimizers = {{
    {"HEALING_OPTIMIZER_UNSPECIFIED", finetune::Optimizer::kMuon},
    {"HEALING_OPTIMIZER_MUON", finetune::Optimizer::kMuon},
    {"HEALING_OPTIMIZER_ADAMW", finetune::Optimizer::kAdamW},
}};

constexpr double kMaxAttentionLoss = 1000;

// A count in [1, most]; absent and 0 mean the default.
absl::StatusOr<int64_t> Count(const JsonObject& object, absl::string_view key, int64_t most,
                              int64_t fallback) {
  LF_ASSIGN_OR_RETURN(const int64_t value, ProtoInt(object, key, 0, most, 0));
  return value == 0 ? fallback : value;
}

}  // namespace

absl::StatusOr<std::optional<HealingSpec>> ParseHealingSpec(const JsonObject& job) {
  if (!job.Has("healing")) return std::nullopt;
  LF_ASSIGN_OR_RETURN(const JsonObject object,
                      ProtoMessage(job, "healing",
                                   {"tokens", "sequenceLength", "batchSequences", "learningRate",
                                    "warmupSteps", "weightDecay", "evaluateEvery", "corpora",
                                    "weights", "attentionLoss", "optimizer"}));
  constexpr int64_t kInt32 = std::numeric_limits<int32_t>::max();
  HealingSpec spec;
  LF_ASSIGN_OR_RETURN(spec.tokens, Count(object, "tokens", int64_t{1} << 40, spec.tokens));
  LF_ASSIGN_OR_RETURN(spec.sequence_length,
                      Count(object, "sequenceLength", kInt32, spec.sequence_length));
  if (spec.sequence_length < 2) return object.Wrong("sequenceLength", "at least 2");
  LF_ASSIGN_OR_RETURN(spec.batch_sequences,
                      Count(object, "batchSequences", kInt32, spec.batch_sequences));
  LF_ASSIGN_OR_RETURN(spec.learning_rate, ProtoDouble(object, "learningRate", 0));
  if (spec.learning_rate < 0 || spec.learning_rate > 1) {
    return object.Wrong("learningRate", "a number from 0 (the default) to 1");
  }
  LF_ASSIGN_OR_RETURN(spec.warmup_steps,
                      ProtoInt(object, "warmupSteps", 0, kInt32, spec.warmup_steps));
  LF_ASSIGN_OR_RETURN(spec.weight_decay, ProtoDouble(object, "weightDecay", 0));
  if (spec.weight_decay < 0 || spec.weight_decay > 1) {
    return object.Wrong("weightDecay", "a number from 0 to 1");
  }
  LF_ASSIGN_OR_RETURN(spec.attention_loss, ProtoDouble(object, "attentionLoss", 0));
  if (spec.attention_loss < 0 || spec.attention_loss > kMaxAttentionLoss) {
    return object.Wrong("attentionLoss", "a number from 0 to 1000");
  }
  LF_ASSIGN_OR_RETURN(spec.evaluate_every,
                      Count(object, "evaluateEvery", kInt32, spec.evaluate_every));
  LF_ASSIGN_OR_RETURN(spec.attention, ProtoEnum(object, "weights", kWeights));
  LF_ASSIGN_OR_RETURN(spec.optimizer, ProtoEnum(object, "optimizer", kOptimizers));
  LF_ASSIGN_OR_RETURN(spec.corpora, ParseCorpora(object, "corpora"));
  return spec;
}

Json HealingSpecToJson(const HealingSpec& spec) {
  Json json = {{"tokens", std::to_string(spec.tokens)},
               {"sequenceLength", spec.sequence_length},
               {"batchSequences", spec.batch_sequences},
               {"learningRate", spec.learning_rate},
               {"warmupSteps", spec.warmup_steps},
               {"weightDecay", spec.weight_decay},
               {"attentionLoss", spec.attention_loss},
               {"evaluateEvery", spec.evaluate_every},
               {"weights", spec.attention ? "HEALED_WEIGHTS_ATTENTION" : "HEALED_WEIGHTS_LATENTS"},
               {"optimizer", ProtoEnumName(kOptimizers, spec.optimizer)}};
  if (!spec.corpora.empty()) json["corpora"] = CorporaToJson(spec.corpora);
  return json;
}

}  // namespace latentforge::convert
