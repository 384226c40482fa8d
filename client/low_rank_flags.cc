#include "client/low_rank_flags.h"

#include "base/status_macros.h"
#include "client/enum_flag.h"

namespace latentforge::client {

absl::Status ApplyLowRank(const LowRankFlags& flags, v1::JobSpec* spec) {
  if (flags.ratio) spec->mutable_budget()->set_parameter_ratio(*flags.ratio);
  LF_RETURN_IF_ERROR(ApplyEnum(
      "--factor-layout", flags.factor_layout, v1::FactorLayout_descriptor(), [&](int value) {
        spec->mutable_low_rank()->set_layout(static_cast<v1::FactorLayout>(value));
      }));
  LF_RETURN_IF_ERROR(
      ApplyEnum("--query-key", flags.query_key, v1::JointMode_descriptor(), [&](int value) {
        spec->mutable_low_rank()->set_query_key(static_cast<v1::JointMode>(value));
      }));
  LF_RETURN_IF_ERROR(
      ApplyEnum("--value-output", flags.value_output, v1::JointMode_descriptor(), [&](int value) {
        spec->mutable_low_rank()->set_value_output(static_cast<v1::JointMode>(value));
      }));
  LF_RETURN_IF_ERROR(ApplyEnum("--mlp", flags.mlp, v1::MlpCompression_descriptor(), [&](int value) {
    spec->mutable_low_rank()->set_mlp(static_cast<v1::MlpCompression>(value));
  }));
  LF_RETURN_IF_ERROR(ApplyEnum(
      "--activations", flags.activations, v1::ActivationSource_descriptor(), [&](int value) {
        spec->mutable_low_rank()->set_activations(static_cast<v1::ActivationSource>(value));
      }));
  if (flags.bias_update) spec->mutable_low_rank()->set_bias_update(true);
  if (flags.literal_hessian) spec->mutable_low_rank()->set_literal_hessian(true);
  return absl::OkStatus();
}

}  // namespace latentforge::client
