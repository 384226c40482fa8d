#include "service/low_rank_fields.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/conversion_defaults.h"
#include "proto/enum_text.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

constexpr char kBudgetReason[] = "BUDGET_OUT_OF_RANGE";

void CheckParameterRatio(const v1::BudgetSpec& budget, Findings& findings) {
  const double ratio = budget.parameter_ratio();
  // NaN is on neither side, so the test asks for the good range.
  if (!(ratio > 0 && ratio < 1))
    findings.Add(kBudgetReason, "spec.budget.parameter_ratio",
                 absl::StrCat("is ", ratio == 0 ? "missing" : absl::StrCat(ratio),
                              ", expected a number in (0, 1) with method low-rank"));
  const auto refuse = [&](const char* field, double value) {
    if (value != 0)
      findings.Add(kBudgetReason, absl::StrCat("spec.budget.", field),
                   absl::StrCat("is ", value, ", expected none with method low-rank"));
  };
  refuse("kv_budget", budget.kv_budget());
  refuse("max_perplexity_ratio", budget.max_perplexity_ratio());
}

void CheckInputFactorization(const v1::FactorizationSpec& spec, Findings& findings) {
  const auto refuse = [&](bool given, const char* field, absl::string_view value) {
    if (given)
      findings.Add(kInvalidField, absl::StrCat("spec.factorization.", field),
                   absl::StrCat("is ", value, ", expected none with method low-rank"));
  };
  const v1::RankAllocation allocation = spec.allocation();
  if (allocation != v1::RANK_ALLOCATION_UNSPECIFIED && allocation != v1::RANK_ALLOCATION_UNIFORM &&
      allocation != v1::RANK_ALLOCATION_GLOBAL)
    findings.Add(kInvalidField, "spec.factorization.allocation",
                 absl::StrCat("is ", ShortEnumName(allocation),
                              ", expected uniform or global with method low-rank"));
  if (allocation == v1::RANK_ALLOCATION_GLOBAL && !IsFisher(spec))
    findings.Add(kInvalidField, "spec.factorization.allocation",
                 absl::StrCat("is global, expected uniform with preconditioner ",
                              ShortEnumName(spec.preconditioner())));
  refuse(spec.latent() != v1::LATENT_LAYOUT_UNSPECIFIED, "latent", ShortEnumName(spec.latent()));
  refuse(spec.has_sink_weight(), "sink_weight", absl::StrCat(spec.sink_weight()));
  refuse(spec.anchored(), "anchored", "true");
  refuse(spec.rank_profile().layers_size() > 0, "rank_profile",
         absl::StrCat("of ", spec.rank_profile().layers_size(), " layers"));
}

template <typename Enum>
void CheckNamed(const char* field, Enum value, bool known, Findings& findings) {
  if (!known)
    findings.Add(kInvalidField, absl::StrCat("spec.low_rank.", field),
                 absl::StrCat("is ", static_cast<int>(value), ", expected a number with a name"));
}

// Joint compression is for scores and contexts, which the covariance of the input describes.
void CheckJoint(const char* field, v1::JointMode mode, const v1::FactorizationSpec& spec,
                Findings& findings) {
  const bool covariance =
      IsFisher(spec) || spec.preconditioner() == v1::PRECONDITIONER_ROOT_COVARIANCE;
  if (mode == v1::JOINT_MODE_JOINT && !covariance)
    findings.Add(kInvalidField, absl::StrCat("spec.low_rank.", field),
                 absl::StrCat("is joint, expected local with preconditioner ",
                              ShortEnumName(spec.preconditioner())));
}

}  // namespace

void CheckLowRank(const v1::JobSpec& spec, Findings& findings) {
  CheckParameterRatio(spec.budget(), findings);
  CheckInputFactorization(spec.factorization(), findings);
  if (spec.has_healing())
    findings.Add(kInvalidField, "spec.healing",
                 "is given, expected none: method low-rank is not healed in this version");
  const v1::LowRankSpec& low_rank = spec.low_rank();
  CheckNamed("layout", low_rank.layout(), v1::FactorLayout_IsValid(low_rank.layout()), findings);
  CheckNamed("query_key", low_rank.query_key(), v1::JointMode_IsValid(low_rank.query_key()),
             findings);
  CheckNamed("value_output", low_rank.value_output(),
             v1::JointMode_IsValid(low_rank.value_output()), findings);
  CheckNamed("mlp", low_rank.mlp(), v1::MlpCompression_IsValid(low_rank.mlp()), findings);
  CheckNamed("activations", low_rank.activations(),
             v1::ActivationSource_IsValid(low_rank.activations()), findings);
  CheckJoint("query_key", low_rank.query_key(), spec.factorization(), findings);
  CheckJoint("value_output", low_rank.value_output(), spec.factorization(), findings);
  if (low_rank.literal_hessian() &&
      spec.factorization().preconditioner() != v1::PRECONDITIONER_DIAGONAL_HESSIAN)
    findings.Add(kInvalidField, "spec.low_rank.literal_hessian",
                 "is true, expected false without preconditioner diagonal-hessian");
}

void CheckNoLowRank(const v1::JobSpec& spec, Findings& findings) {
  if (spec.budget().parameter_ratio() != 0)
    findings.Add(kBudgetReason, "spec.budget.parameter_ratio",
                 absl::StrCat("is ", spec.budget().parameter_ratio(),
                              ", expected none without method low-rank"));
  if (spec.has_low_rank())
    findings.Add(kInvalidField, "spec.low_rank", "is given, expected none without method low-rank");
}

void FillLowRank(v1::JobSpec& spec) {
  v1::FactorizationSpec& factorization = *spec.mutable_factorization();
  if (factorization.preconditioner() == v1::PRECONDITIONER_UNSPECIFIED)
    factorization.set_preconditioner(v1::PRECONDITIONER_FISHER);
  const bool fisher = IsFisher(factorization);
  if (factorization.allocation() == v1::RANK_ALLOCATION_UNSPECIFIED)
    factorization.set_allocation(fisher ? v1::RANK_ALLOCATION_GLOBAL : v1::RANK_ALLOCATION_UNIFORM);
  if (!factorization.has_damping()) factorization.set_damping(kDefaultDamping);
  if (!factorization.has_alpha()) factorization.set_alpha(kDefaultAlpha);
  if (factorization.rank_multiple() == 0) factorization.set_rank_multiple(1);
  v1::LowRankSpec& low_rank = *spec.mutable_low_rank();
  if (low_rank.layout() == v1::FACTOR_LAYOUT_UNSPECIFIED)
    low_rank.set_layout(v1::FACTOR_LAYOUT_BLOCK_IDENTITY);
  const bool joint = factorization.preconditioner() == v1::PRECONDITIONER_ROOT_COVARIANCE;
  const v1::JointMode mode = joint ? v1::JOINT_MODE_JOINT : v1::JOINT_MODE_LOCAL;
  if (low_rank.query_key() == v1::JOINT_MODE_UNSPECIFIED) low_rank.set_query_key(mode);
  if (low_rank.value_output() == v1::JOINT_MODE_UNSPECIFIED) low_rank.set_value_output(mode);
  if (low_rank.mlp() == v1::MLP_COMPRESSION_UNSPECIFIED)
    low_rank.set_mlp(v1::MLP_COMPRESSION_LOCAL);
  if (low_rank.activations() == v1::ACTIVATION_SOURCE_UNSPECIFIED)
    low_rank.set_activations(v1::ACTIVATION_SOURCE_ORIGINAL);
}

}  // namespace latentforge::service
