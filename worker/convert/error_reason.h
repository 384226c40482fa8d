// Stable identifiers of what can go wrong in an attempt, and who has to act.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace latentforge::convert {

enum class ErrorClass { kUser = 1, kSystem = 2, kResource = 3 };

// What an error event says besides its message.
struct ErrorInfo {
  std::string reason;  // UPPER_SNAKE_CASE
  ErrorClass error_class = ErrorClass::kSystem;
  bool retryable = true;
};

// The status with a reason, unless it is OK or already has one.
absl::Status WithReason(absl::Status status, absl::string_view reason);

// The status with the reason that `reasons` gives for its code, where it gives
// one: {{kNotFound, "SOURCE_NOT_READABLE"}, …}.
struct CodeReason {
  absl::StatusCode code;
  const char* reason;
};
absl::Status WithReasonByCode(absl::Status status, std::initializer_list<CodeReason> reasons);

// Reason, class and retryability of a failed status. Without a reason the code
// decides: ResourceExhausted is SCRATCH_FULL or OUT_OF_MEMORY by its message,
// InvalidArgument INVALID_SPEC, anything else INTERNAL.
ErrorInfo DescribeError(const absl::Status& status);

// The exit code of the process for a status: 0, 1 user, 3 system, 4 resource,
// 5 cancelled.
int ExitCode(const absl::Status& status);

}  // namespace latentforge::convert
