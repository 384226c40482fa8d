// How an attempt is reported, from everything that is known about its process.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/child_process.h"
#include "latentforge/v1/worker_service.pb.h"
#include "worker/agent/attempt_control.h"

namespace latentforge::agent {

struct AttemptFacts {
  StopReason stop = StopReason::kNone;         // when the process ended
  absl::Status roots;                          // finding the folders that it may use
  absl::Status scratch;                        // preparing the scratch folder
  absl::Status start;                          // starting the process
  absl::Status stream;                         // reading its events
  std::optional<ExitStatus> exit;              // set when it was started
  std::optional<v1::ConversionResult> result;  // its last event
  std::optional<v1::ConversionError> error;    // its last event
  v1::Phase phase = v1::PHASE_UNSPECIFIED;     // the last that it named
  bool overdue = false;                        // killed: it did not end after its last event
  // Whether the kernel killed a process for lack of memory meanwhile; nullopt: it does not say.
  std::optional<bool> memory_ran_out;
  std::vector<std::string> stderr_tail;
};

// The request, without its lease. nullopt: the lease is lost, nothing is said.
// Success needs both the result event and exit code 0, and then wins over a
// cancellation, a pause or a release that came too late. Pure.
std::optional<v1::CompleteAttemptRequest> DecideOutcome(const AttemptFacts& facts);

// True when a later attempt of the job may continue this one's scratch files.
bool KeepsScratch(const v1::CompleteAttemptRequest& outcome);

}  // namespace latentforge::agent
