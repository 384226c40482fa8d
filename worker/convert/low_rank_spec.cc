#include "worker/convert/low_rank_spec.h"

#include <array>
#include <optional>
#include <utility>

#include "base/status_macros.h"
#include "worker/convert/preconditioner_names.h"
#include "worker/convert/proto_json.h"

namespace latentforge::convert {
namespace {

using checkpoint::RankRule;
using factorize::Preconditioner;

// Global ranks or not; absent: as the preconditioner has it.
constexpr std::array<std::pair<const char*, std::optional<bool>>, 3> kGlobal = {{
    {"RANK_ALLOCATION_UNSPECIFIED", std::nullopt},
    {"RANK_ALLOCATION_UNIFORM", false},
    {"RANK_ALLOCATION_GLOBAL", true},
}};

constexpr std::array<std::pair<const char*, RankRule>, 3> kFactorLayouts = {{
    {"FACTOR_LAYOUT_UNSPECIFIED", RankRule::kBlockIdentity},
    {"FACTOR_LAYOUT_BLOCK_IDENTITY", RankRule::kBlockIdentity},
    {"FACTOR_LAYOUT_PLAIN", RankRule::kNaive},
}};

// Joint or not; absent: as the preconditioner has it.
constexpr std::array<std::pair<const char*, std::optional<bool>>, 3> kJointModes = {{
    {"JOINT_MODE_UNSPECIFIED", std::nullopt},
    {"JOINT_MODE_JOINT", true},
    {"JOINT_MODE_LOCAL", false},
}};

constexpr std::array<std::pair<const char*, MlpCompression>, 4> kMlpCompressions = {{
    {"MLP_COMPRESSION_UNSPECIFIED", MlpCompression::kLocal},
    {"MLP_COMPRESSION_LOCAL", MlpCompression::kLocal},
    {"MLP_COMPRESSION_ALTERNATION", MlpCompression::kAlternation},
    {"MLP_COMPRESSION_OUTPUT_METRIC", MlpCompression::kOutputMetric},
}};

// Those of the compressed layers, or not.
constexpr std::array<std::pair<const char*, bool>, 3> kActivations = {{
    {"ACTIVATION_SOURCE_UNSPECIFIED", false},
    {"ACTIVATION_SOURCE_ORIGINAL", false},
    {"ACTIVATION_SOURCE_COMPRESSED", true},
}};

absl::Status ParseRatio(const JsonObject& job, LowRankSpec& spec) {
  LF_ASSIGN_OR_RETURN(const JsonObject budget, ProtoMessage(job, "budget", {"parameterRatio"}));
  LF_ASSIGN_OR_RETURN(spec.ratio, ProtoDouble(budget, "parameterRatio", 0));
  if (spec.ratio > 0 && spec.ratio < 1) return absl::OkStatus();
  return budget.Wrong("parameterRatio", "more than 0 and less than 1 with METHOD_LOW_RANK");
}

absl::Status ParseFactorization(const JsonObject& job, LowRankSpec& spec) {
  LF_ASSIGN_OR_RETURN(const JsonObject object, ProtoMessage(job, "factorization",
                                                            {"preconditioner", "damping", "alpha",
                                                             "allocation", "rankMultiple"}));
  LF_ASSIGN_OR_RETURN(const std::optional<Preconditioner> preconditioner,
                      ProtoEnum(object, "preconditioner", kPreconditionerNames));
  spec.loss_aware = !preconditioner.has_value();
  spec.preconditioner.kind = preconditioner.value_or(Preconditioner::kRootCovariance);
  LF_ASSIGN_OR_RETURN(spec.preconditioner.damping, ProtoDouble(object, "damping", kDefaultDamping));
  if (spec.preconditioner.damping < 0) return object.Wrong("damping", "a number of at least 0");
  LF_ASSIGN_OR_RETURN(spec.preconditioner.alpha, ProtoDouble(object, "alpha", kDefaultAlpha));
  if (spec.preconditioner.alpha < 0) return object.Wrong("alpha", "a number of at least 0");
  LF_ASSIGN_OR_RETURN(const std::optional<bool> global, ProtoEnum(object, "allocation", kGlobal));
  spec.global_ranks = global.value_or(spec.loss_aware);
  if (spec.global_ranks && !spec.loss_aware) {
    return object.Wrong("allocation", "RANK_ALLOCATION_UNIFORM without PRECONDITIONER_FISHER");
  }
  LF_ASSIGN_OR_RETURN(spec.rank_multiple, ProtoInt(object, "rankMultiple", 0, INT32_MAX, 0));
  if (spec.rank_multiple == 0) spec.rank_multiple = 1;
  return absl::OkStatus();
}

absl::StatusOr<bool> ParseJoint(const JsonObject& object, absl::string_view key,
                                const LowRankSpec& spec) {
  const bool covariance = spec.preconditioner.kind == Preconditioner::kRootCovariance;
  LF_ASSIGN_OR_RETURN(const std::optional<bool> joint, ProtoEnum(object, key, kJointModes));
  if (joint.value_or(false) && !covariance) {
    return object.Wrong(key, "JOINT_MODE_LOCAL with a preconditioner other than root-covariance");
  }
  return joint.value_or(covariance && !spec.loss_aware);
}

}  // namespace

absl::StatusOr<LowRankSpec> ParseLowRankSpec(const JsonObject& job) {
  LowRankSpec spec;
  LF_RETURN_IF_ERROR(ParseRatio(job, spec));
  LF_RETURN_IF_ERROR(ParseFactorization(job, spec));
  LF_ASSIGN_OR_RETURN(const JsonObject object,
                      ProtoMessage(job, "lowRank",
                                   {"layout", "queryKey", "valueOutput", "mlp", "biasUpdate",
                                    "activations", "literalHessian"}));
  LF_ASSIGN_OR_RETURN(spec.layout, ProtoEnum(object, "layout", kFactorLayouts));
  LF_ASSIGN_OR_RETURN(spec.joint_query_key, ParseJoint(object, "queryKey", spec));
  LF_ASSIGN_OR_RETURN(spec.joint_value_output, ParseJoint(object, "valueOutput", spec));
  LF_ASSIGN_OR_RETURN(spec.mlp, ProtoEnum(object, "mlp", kMlpCompressions));
  LF_ASSIGN_OR_RETURN(spec.bias_update, object.BoolOr("biasUpdate", false));
  LF_ASSIGN_OR_RETURN(spec.compressed_activations, ProtoEnum(object, "activations", kActivations));
  LF_ASSIGN_OR_RETURN(spec.literal_hessian, object.BoolOr("literalHessian", false));
  if (spec.literal_hessian && spec.preconditioner.kind != Preconditioner::kDiagonalHessian) {
    return object.Wrong("literalHessian", "false without PRECONDITIONER_DIAGONAL_HESSIAN");
  }
  return spec;
}

void AddLowRankSpec(const LowRankSpec& spec, Json& job) {
  job["budget"] = {{"parameterRatio", spec.ratio}};
  job["factorization"] = {
      {"preconditioner",
       ProtoEnumName(kPreconditionerNames,
                     spec.loss_aware ? std::nullopt
                                     : std::optional<Preconditioner>(spec.preconditioner.kind))},
      {"damping", spec.preconditioner.damping},
      {"alpha", spec.preconditioner.alpha},
      {"allocation", ProtoEnumName(kGlobal, std::optional<bool>(spec.global_ranks))},
      {"rankMultiple", spec.rank_multiple}};
  job["lowRank"] = {
      {"layout", ProtoEnumName(kFactorLayouts, spec.layout)},
      {"queryKey", ProtoEnumName(kJointModes, std::optional<bool>(spec.joint_query_key))},
      {"valueOutput", ProtoEnumName(kJointModes, std::optional<bool>(spec.joint_value_output))},
      {"mlp", ProtoEnumName(kMlpCompressions, spec.mlp)},
      {"biasUpdate", spec.bias_update},
      {"activations", ProtoEnumName(kActivations, spec.compressed_activations)},
      {"literalHessian", spec.literal_hessian}};
}

}  // namespace latentforge::convert
