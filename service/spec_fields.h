// Checks and defaults of a specification that need neither files nor a model.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "latentforge/v1/spec.pb.h"
#include "service/errors.h"

namespace latentforge::service {

// What is wrong with a request; the reason of the first finding is the error's.
// Not safe for concurrent use.
class Findings {
 public:
  void Add(absl::string_view reason, absl::string_view field, absl::string_view description);

  bool empty() const { return violations_.empty(); }

  // OK, or INVALID_ARGUMENT with every finding.
  absl::Status ToStatus() const;

 private:
  std::string reason_;
  std::vector<FieldViolation> violations_;
};

// Whether errors are weighed by the loss: asked for, or by default.
bool IsFisher(const v1::FactorizationSpec& spec);

// UNIMPLEMENTED METHOD_NOT_SUPPORTED for a method of the API that this version
// does not run.
absl::Status CheckMethod(const v1::JobSpec& spec);

// Adds a finding for each field whose value cannot be right.
void CheckFields(const v1::JobSpec& spec, Findings& findings);

// `spec` with the defaults of base/conversion_defaults.h where a field is not set;
// default lengths are at most `max_positions`.
v1::JobSpec WithDefaults(const v1::JobSpec& spec, int64_t max_positions);

}  // namespace latentforge::service
