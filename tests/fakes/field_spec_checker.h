// Checks the fields of a specification as the server does, and believes in the files that it names.
#pragma once

#include "base/status_macros.h"
#include "service/spec_checker.h"
#include "service/spec_fields.h"

namespace latentforge::service {

class FieldSpecChecker final : public SpecChecker {
 public:
  absl::StatusOr<CheckedSpec> Check(const v1::JobSpec& spec, const PathRoots&) const override {
    LF_RETURN_IF_ERROR(CheckMethod(spec));
    Findings findings;
    CheckFields(spec, findings);
    LF_RETURN_IF_ERROR(findings.ToStatus());
    CheckedSpec checked;
    checked.spec = WithDefaults(spec, 2048);
    checked.output_path = spec.output().uri();
    return checked;
  }
};

}  // namespace latentforge::service
