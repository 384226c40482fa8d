#include "worker/convert/job_spec.h"

#include <limits>

#include "absl/strings/match.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/convert/proto_json.h"

namespace latentforge::convert {
namespace {

using calibrate::FisherLabels;
using checkpoint::DType;

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();

enum class Method { kUnspecified, kKvLatent, kFullMla, kLowRank };
constexpr std::array<std::pair<const char*, Method>, 4> kMethods = {{
    {"METHOD_UNSPECIFIED", Method::kUnspecified},
    {"METHOD_KV_LATENT", Method::kKvLatent},
    {"METHOD_FULL_MLA", Method::kFullMla},
    {"METHOD_LOW_RANK", Method::kLowRank},
}};

constexpr std::array<std::pair<const char*, FisherLabels>, 3> kLabels = {{
    {"FISHER_LABELS_UNSPECIFIED", FisherLabels::kSampled},
    {"FISHER_LABELS_SAMPLED", FisherLabels::kSampled},
    {"FISHER_LABELS_TEXT", FisherLabels::kText},
}};

constexpr std::array<std::pair<const char*, std::optional<DType>>, 4> kDataTypes = {{
    {"DATA_TYPE_UNSPECIFIED", std::nullopt},
    {"DATA_TYPE_FLOAT32", DType::kF32},
    {"DATA_TYPE_BFLOAT16", DType::kBF16},
    {"DATA_TYPE_FLOAT16", DType::kF16},
}};

absl::Status ParseCalibration(const JsonObject& root, JobSpec& spec) {
  LF_ASSIGN_OR_RETURN(const JsonObject object,
                      ProtoMessage(root, "calibration",
                                   {"corpora", "sequences", "sequenceLength", "seed", "labels"}));
  LF_ASSIGN_OR_RETURN(spec.corpora, ParseCorpora(object, "corpora"));
  if (spec.corpora.empty()) return object.Wrong("corpora", "a list of at least one corpus");
  LF_ASSIGN_OR_RETURN(spec.sequences, ProtoInt(object, "sequences", 0, kMaxInt32, 0));
  LF_ASSIGN_OR_RETURN(spec.sequence_length, ProtoInt(object, "sequenceLength", 0, kMaxInt32, 0));
  if (spec.sequences == 0) spec.sequences = kDefaultCalibrationSequences;
  if (spec.sequence_length == 0) spec.sequence_length = kDefaultSequenceLength;
  LF_ASSIGN_OR_RETURN(spec.seed, ProtoUint64(object, "seed"));
  LF_ASSIGN_OR_RETURN(spec.labels, ProtoEnum(object, "labels", kLabels));
  return absl::OkStatus();
}

absl::Status ParseEvaluation(const JsonObject& root, JobSpec& spec) {
  LF_ASSIGN_OR_RETURN(
      const JsonObject object,
      ProtoMessage(root, "evaluation", {"corpus", "windows", "windowLength", "qualityGate"}));
  LF_ASSIGN_OR_RETURN(spec.evaluation, ParseCorpus(object, "corpus"));
  LF_ASSIGN_OR_RETURN(spec.windows, ProtoInt(object, "windows", 0, kMaxInt32, 0));
  LF_ASSIGN_OR_RETURN(spec.window_length, ProtoInt(object, "windowLength", 0, kMaxInt32, 0));
  if (spec.windows == 0) spec.windows = kDefaultEvaluationWindows;
  if (spec.window_length == 0) spec.window_length = kDefaultWindowLength;
  if (spec.window_length < 2) return object.Wrong("windowLength", "at least 2");
  LF_ASSIGN_OR_RETURN(spec.quality_gate, ProtoDouble(object, "qualityGate", 0));
  if (spec.quality_gate != 0 && spec.quality_gate < 1) {
    return object.Wrong("qualityGate", "a perplexity ratio of at least 1, or 0 for none");
  }
  return absl::OkStatus();
}

absl::StatusOr<Method> ParseMethod(const JsonObject& root) {
  LF_ASSIGN_OR_RETURN(const Method method, ProtoEnum(root, "method", kMethods));
  if (method != Method::kFullMla) return method;
  return absl::UnimplementedError(
      absl::StrCat("job spec: method is ", ProtoEnumName(kMethods, method),
                   ", this version converts with METHOD_KV_LATENT and METHOD_LOW_RANK only"));
}

// One of the two says how small the cache becomes.
absl::Status ParseBudget(const JsonObject& root, JobSpec& spec) {
  LF_ASSIGN_OR_RETURN(const JsonObject budget,
                      ProtoMessage(root, "budget", {"kvBudget", "maxPerplexityRatio"}));
  LF_ASSIGN_OR_RETURN(spec.kv_budget, ProtoDouble(budget, "kvBudget", 0));
  LF_ASSIGN_OR_RETURN(spec.max_perplexity_ratio, ProtoDouble(budget, "maxPerplexityRatio", 0));
  if (spec.max_perplexity_ratio == 0) {
    if (spec.kv_budget > 0 && spec.kv_budget <= 1) return absl::OkStatus();
    return budget.Wrong("kvBudget", "more than 0 and at most 1");
  }
  if (!(spec.max_perplexity_ratio > 1)) return budget.Wrong("maxPerplexityRatio", "more than 1");
  if (spec.kv_budget != 0) return budget.Wrong("kvBudget", "none beside maxPerplexityRatio");
  return absl::OkStatus();
}

absl::Status ParseRest(const JsonObject& root, JobSpec& spec) {
  LF_ASSIGN_OR_RETURN(const JsonObject source, ProtoMessage(root, "source", {"uri"}));
  LF_ASSIGN_OR_RETURN(spec.source, ParsePath(source, "uri"));
  LF_ASSIGN_OR_RETURN(const JsonObject output, ProtoMessage(root, "output", {"uri", "dtype"}));
  LF_ASSIGN_OR_RETURN(spec.output, ParsePath(output, "uri"));
  LF_ASSIGN_OR_RETURN(spec.output_dtype, ProtoEnum(output, "dtype", kDataTypes));
  LF_ASSIGN_OR_RETURN(const std::optional<DType> dtype, ProtoEnum(root, "dtype", kDataTypes));
  if (dtype == DType::kF16) {
    return root.Wrong("dtype",
                      "DATA_TYPE_BFLOAT16 or DATA_TYPE_FLOAT32: float16 is for output only");
  }
  spec.dtype = dtype.value_or(DType::kBF16);
  LF_ASSIGN_OR_RETURN(spec.device, root.StringOr("device", "auto"));
  if (spec.device.empty()) spec.device = "auto";
  LF_ASSIGN_OR_RETURN(const int64_t threads, ProtoInt(root, "threads", 0, 1024, 0));
  spec.threads = static_cast<int>(threads);
  // The server keeps these; here they only have to be well formed.
  for (const char* key : {"deadline", "queueDeadline", "runDeadline", "ttl", "priority"}) {
    LF_RETURN_IF_ERROR(root.StringOr(key, "").status());
  }
  if (root.Has("workerSelector")) LF_RETURN_IF_ERROR(root.Object("workerSelector").status());
  return absl::OkStatus();
}

// What METHOD_KV_LATENT alone reads.
absl::Status ParseKvLatent(const JsonObject& root, JobSpec& spec) {
  LF_RETURN_IF_ERROR(ParseBudget(root, spec));
  LF_ASSIGN_OR_RETURN(spec.factorization, ParseFactorizationSpec(root));
  if (root.Has("lowRank")) return root.Wrong("lowRank", "none without METHOD_LOW_RANK");
  const bool predicts = spec.factorization.loss_aware && spec.factorization.allocation;
  if (spec.max_perplexity_ratio > 0 && !predicts) {
    return absl::InvalidArgumentError(
        "job spec: budget.maxPerplexityRatio needs PRECONDITIONER_FISHER and no rank profile: the "
        "search follows its predicted loss");
  }
  if (spec.max_perplexity_ratio > 0 && spec.factorization.anchored) {
    return absl::InvalidArgumentError(
        "job spec: factorization.anchored is true, expected false beside "
        "budget.maxPerplexityRatio: the search measures factorisations without it");
  }
  return absl::OkStatus();
}

// What METHOD_LOW_RANK alone reads; nothing of it comes from the Fisher information.
absl::Status ParseLowRank(const JsonObject& root, JobSpec& spec) {
  LF_ASSIGN_OR_RETURN(spec.low_rank, ParseLowRankSpec(root));
  spec.factorization.loss_aware = false;
  spec.factorization.joint = false;
  if (root.Has("healing")) return root.Wrong("healing", "none with METHOD_LOW_RANK");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<JobSpec> ParseJobSpec(absl::string_view text) {
  LF_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  LF_ASSIGN_OR_RETURN(const JsonObject root, JsonObject::Create(json, "job spec"));
  LF_RETURN_IF_ERROR(root.RejectUnknownKeys(
      {"source", "method", "budget", "factorization", "calibration", "evaluation", "output",
       "dtype", "device", "threads", "deadline", "healing", "queueDeadline", "runDeadline", "ttl",
       "priority", "workerSelector", "lowRank"}));
  JobSpec spec;
  LF_ASSIGN_OR_RETURN(const Method method, ParseMethod(root));
  LF_RETURN_IF_ERROR(ParseRest(root, spec));
  LF_RETURN_IF_ERROR(method == Method::kLowRank ? ParseLowRank(root, spec)
                                                : ParseKvLatent(root, spec));
  LF_RETURN_IF_ERROR(ParseCalibration(root, spec));
  LF_RETURN_IF_ERROR(ParseEvaluation(root, spec));
  LF_ASSIGN_OR_RETURN(spec.healing, ParseHealingSpec(root));
  return spec;
}

Json JobSpecToJson(const JobSpec& spec) {
  Json evaluation = {{"windows", spec.windows}, {"windowLength", spec.window_length}};
  if (spec.evaluation) evaluation["corpus"] = CorpusToJson(*spec.evaluation);
  if (spec.quality_gate > 0) evaluation["qualityGate"] = spec.quality_gate;
  Json budget = {{"kvBudget", spec.kv_budget}};
  if (spec.max_perplexity_ratio > 0) budget = {{"maxPerplexityRatio", spec.max_perplexity_ratio}};
  Json json = {
      {"source", {{"uri", UriFromPath(spec.source)}}},
      {"method", ProtoEnumName(kMethods, spec.low_rank ? Method::kLowRank : Method::kKvLatent)},
      {"budget", std::move(budget)},
      {"factorization", FactorizationSpecToJson(spec.factorization)},
      {"calibration",
       {{"corpora", CorporaToJson(spec.corpora)},
        {"sequences", spec.sequences},
        {"sequenceLength", spec.sequence_length},
        {"seed", std::to_string(spec.seed)},
        {"labels", ProtoEnumName(kLabels, spec.labels)}}},
      {"evaluation", std::move(evaluation)},
      {"output",
       {{"uri", UriFromPath(spec.output)},
        {"dtype", ProtoEnumName(kDataTypes, spec.output_dtype)}}},
      {"dtype", ProtoEnumName(kDataTypes, std::optional<DType>(spec.dtype))},
      {"device", spec.device},
      {"threads", spec.threads}};
  if (spec.low_rank) AddLowRankSpec(*spec.low_rank, json);
  if (spec.healing) json["healing"] = HealingSpecToJson(*spec.healing);
  return json;
}

}  // namespace latentforge::convert
