#include "client/draft_checks.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/error.h"
#include "proto/enum_text.h"

namespace latentforge::client {
namespace {

// The API names methods of later versions too.
absl::Status CheckMethod(v1::Method method) {
  if (method != v1::METHOD_FULL_MLA) return absl::OkStatus();
  return WithReason(absl::InvalidArgumentError(absl::StrCat(
                        "--method is ", ShortEnumName(method),
                        ", which is not available in this version, expected kv-latent or low-rank "
                        "(job file: method)")),
                    "METHOD_NOT_SUPPORTED");
}

std::string Seen(double value) { return value == 0 ? "missing" : absl::StrCat(value); }

// NaN is on neither side, so the tests ask for the good range.
absl::Status CheckBudget(const v1::JobSpec& spec) {
  const v1::BudgetSpec& budget = spec.budget();
  if (spec.method() == v1::METHOD_LOW_RANK) {
    const double ratio = budget.parameter_ratio();
    if (ratio > 0 && ratio < 1) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("--ratio is ", Seen(ratio), ", expected a number in (0, 1) with --method ",
                     "low-rank, such as 0.3 (job file: budget.parameterRatio)"));
  }
  if (budget.kv_budget() > 0 && budget.kv_budget() <= 1) return absl::OkStatus();
  if (budget.max_perplexity_ratio() != 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--kv-budget is ", Seen(budget.kv_budget()),
                   ", expected a number in (0, 1], such as 0.5 (job file: budget.kvBudget), or "
                   "--max-perplexity-ratio"));
}

}  // namespace

absl::Status CheckComplete(const v1::JobSpec& spec) {
  LF_RETURN_IF_ERROR(CheckMethod(spec.method()));
  if (spec.source().uri().empty()) {
    return absl::InvalidArgumentError(
        "MODEL is missing: name the folder of the checkpoint to convert (job file: source.uri)");
  }
  if (spec.output().uri().empty()) {
    return absl::InvalidArgumentError(
        "--out is missing: name the folder to write (job file: output.uri)");
  }
  if (spec.calibration().corpora().empty()) {
    return absl::InvalidArgumentError(
        "--calibration is missing: name a text file (job file: calibration.corpora)");
  }
  return CheckBudget(spec);
}

}  // namespace latentforge::client
