// Errors as users see them: message, stable reason, wrong fields, next step.
// They travel as payloads of absl::Status, so every function keeps returning one.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/exit_code.h"

namespace latentforge::client {

// One field of a request that the server refused.
struct FieldViolation {
  std::string field;
  std::string description;
};

// The same error with a reason (upper-case identifier), a next step (one
// sentence or command) or violations. An OK status stays as it is.
absl::Status WithReason(absl::Status status, absl::string_view reason);
absl::Status WithNextStep(absl::Status status, absl::string_view next_step);
absl::Status WithViolations(absl::Status status, const std::vector<FieldViolation>& violations);

// Overrides the exit status that the code would give.
absl::Status WithExitCode(absl::Status status, ExitCode code);

// The exit status of a command that ended like this.
int ExitCodeOf(const absl::Status& status);

// What an error carries; empty when it carries none. The next step is the advice on
// its reason or code (client/advice.h) where nobody gave one.
std::string ReasonOf(const absl::Status& status);
std::string NextStepOf(const absl::Status& status);
std::vector<FieldViolation> ViolationsOf(const absl::Status& status);

// For people: "error: MESSAGE [REASON]", one line a violation under the name of its
// flag, and the next step, by the reason where nobody gave one.
std::string RenderErrorText(const absl::Status& status);

// For programs, on one line: {"error":{"code","reason","message",
// "fieldViolations","nextStep","exitCode"}}.
std::string RenderErrorJson(const absl::Status& status);

}  // namespace latentforge::client
