// What the exit status of `latentforge` means; scripts rely on it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "latentforge/v1/job.pb.h"

namespace latentforge::client {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailure = 1,
  kExitUsage = 2,
  kExitJobFailed = 3,
  kExitDenied = 4,
  kExitJobCancelled = 5,
  kExitNotFound = 6,
  kExitConflict = 7,
  kExitWaitTimedOut = 8,
  kExitUnavailable = 9,
  kExitInterrupted = 130,
};

// The exit status for the outcome of a command.
ExitCode ExitCodeForStatus(const absl::Status& status);

// The exit status for a job that has ended; kExitFailure for other states.
ExitCode ExitCodeForState(v1::JobState state);

// The table that `latentforge help exit-codes` prints.
std::string ExitCodesHelp();

}  // namespace latentforge::client
