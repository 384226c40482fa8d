#include "worker/agent/outcome.h"

#include <signal.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace latentforge::agent {
namespace {

constexpr int kExitCancelled = 5;

v1::ConversionError MakeError(const AttemptFacts& facts, const char* reason,
                              v1::ErrorClass error_class, std::string message) {
  v1::ConversionError error;
  error.set_reason(reason);
  error.set_message(std::move(message));
  error.set_error_class(error_class);
  error.set_phase(facts.phase);
  error.set_retryable(true);
  return error;
}

v1::ConversionError PreparationError(const AttemptFacts& facts, const char* reason,
                                     const absl::Status& status) {
  const bool full = status.code() == absl::StatusCode::kResourceExhausted;
  return MakeError(facts, full ? "SCRATCH_FULL" : reason,
                   full ? v1::ERROR_CLASS_RESOURCE : v1::ERROR_CLASS_SYSTEM,
                   std::string(status.message()));
}

bool GpuMemoryRanOut(const AttemptFacts& facts) {
  for (const std::string& line : facts.stderr_tail) {
    if (absl::StrContains(line, "CUDA out of memory") ||
        absl::StrContains(line, "CUDA error: out of memory")) {
      return true;
    }
  }
  return false;
}

// A process that ended on its own without a valid last word.
v1::ConversionError CrashError(const AttemptFacts& facts) {
  std::string message = absl::StrCat("the compute process ended with ", facts.exit->ToString());
  const char* reason = "WORKER_CRASHED";
  v1::ErrorClass error_class = v1::ERROR_CLASS_SYSTEM;
  if (facts.overdue) {
    absl::StrAppend(&message, ": killed, for it did not end after its last event");
  } else if (GpuMemoryRanOut(facts)) {
    reason = "GPU_OUT_OF_MEMORY";
    error_class = v1::ERROR_CLASS_RESOURCE;
  } else if (facts.exit->signal == SIGKILL && facts.memory_ran_out.value_or(false)) {
    reason = "OUT_OF_MEMORY";
    error_class = v1::ERROR_CLASS_RESOURCE;
    absl::StrAppend(&message, ": the kernel killed it because memory ran out");
  } else if (facts.exit->signal == SIGKILL) {
    absl::StrAppend(&message, facts.memory_ran_out.has_value()
                                  ? ": somebody killed it; the kernel counts no kill of its own"
                                  : ": somebody killed it, or the kernel when memory ran out");
  } else if (facts.result.has_value()) {
    absl::StrAppend(&message, " after it had reported a result");
  } else {
    absl::StrAppend(&message, " without a result or an error");
  }
  if (!facts.stderr_tail.empty()) {
    absl::StrAppend(&message, "; its last lines: ", absl::StrJoin(facts.stderr_tail, " | "));
  }
  return MakeError(facts, reason, error_class, std::move(message));
}

// The error of an attempt that was not stopped, or that failed before it was.
std::optional<v1::ConversionError> OwnError(const AttemptFacts& facts) {
  // Another worker may allow more, so that it is tried again, as often as attempts are.
  if (!facts.roots.ok())
    return MakeError(facts, "WORKER_ROOTS_TOO_NARROW", v1::ERROR_CLASS_SYSTEM,
                     std::string(facts.roots.message()));
  if (!facts.scratch.ok()) return PreparationError(facts, "SCRATCH_UNUSABLE", facts.scratch);
  if (!facts.start.ok()) return PreparationError(facts, "WORKER_MISCONFIGURED", facts.start);
  if (!facts.stream.ok()) {
    return MakeError(facts, "EVENT_STREAM_INVALID", v1::ERROR_CLASS_SYSTEM,
                     std::string(facts.stream.message()));
  }
  return facts.error;
}

}  // namespace

std::optional<v1::CompleteAttemptRequest> DecideOutcome(const AttemptFacts& facts) {
  if (facts.stop == StopReason::kLeaseLost) return std::nullopt;
  v1::CompleteAttemptRequest outcome;
  const bool clean = facts.stream.ok() && facts.exit.has_value() && facts.exit->ok();
  if (clean && facts.result.has_value()) {
    *outcome.mutable_result() = *facts.result;
    return outcome;
  }
  if (facts.stop == StopReason::kCancel) {
    outcome.mutable_cancelled();
    return outcome;
  }
  if (std::optional<v1::ConversionError> error = OwnError(facts); error.has_value()) {
    *outcome.mutable_error() = *std::move(error);
    return outcome;
  }
  // Exit code 5 without a request of ours: something else, such as the service manager that is
  // about to stop us too, sent SIGTERM.
  const bool interrupted =
      facts.exit.has_value() && facts.exit->signal == 0 && facts.exit->code == kExitCancelled;
  if (facts.stop == StopReason::kPause) {
    outcome.mutable_paused();
    return outcome;
  }
  if (facts.stop != StopReason::kNone || interrupted || !facts.exit.has_value()) {
    outcome.mutable_released();
    return outcome;
  }
  *outcome.mutable_error() = CrashError(facts);
  return outcome;
}

bool KeepsScratch(const v1::CompleteAttemptRequest& outcome) {
  return outcome.has_released() || outcome.has_paused() ||
         (outcome.has_error() && outcome.error().retryable());
}

}  // namespace latentforge::agent
