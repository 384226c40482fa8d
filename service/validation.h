// Checks a specification against the files that it names.
#pragma once

#include "checkpoint/model_config.h"
#include "service/spec_checker.h"
#include "service/spec_fields.h"

namespace latentforge::service {

// Opens the source checkpoint and looks at corpora and output. Paths must lie
// beneath the roots, symbolic links resolved; so must what links in the source's folder lead to.
// Of a path outside nothing is told, not even whether it exists. The
// specification it returns names the resolved paths, so that what was checked is
// what a worker opens. Safe for concurrent use.
class FileSpecChecker final : public SpecChecker {
 public:
  // INVALID_ARGUMENT with a violation for each wrong field; UNIMPLEMENTED
  // METHOD_NOT_SUPPORTED.
  absl::StatusOr<CheckedSpec> Check(const v1::JobSpec& spec, const PathRoots& roots) const override;
};

// Findings for ranks that the model does not allow or that exceed the budget.
void CheckRankProfile(const v1::JobSpec& spec, const checkpoint::ModelConfig& config,
                      Findings& findings);

// A finding where the budget of a specification with defaults leaves a latent less than its
// least rank: one rank multiple. None for a rank profile.
void CheckRanksFit(const v1::JobSpec& spec, const checkpoint::ModelConfig& config,
                   Findings& findings);

}  // namespace latentforge::service
