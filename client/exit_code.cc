#include "client/exit_code.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace latentforge::client {
namespace {

struct ExitCodeText {
  ExitCode code;
  const char* text;
};

constexpr ExitCodeText kTexts[] = {
    {kExitOk, "success"},
    {kExitFailure, "failure"},
    {kExitUsage, "usage: a flag, a job file or a job specification is wrong"},
    {kExitJobFailed, "the job ended FAILED"},
    {kExitDenied, "not authenticated, or permission denied"},
    {kExitJobCancelled, "the job ended CANCELLED"},
    {kExitNotFound, "a job, file or folder was not found or cannot be read"},
    {kExitConflict, "conflict: it exists already, or its state does not allow this"},
    {kExitWaitTimedOut, "the wait timed out; the job goes on"},
    {kExitUnavailable, "the server cannot be reached, or did not answer in time"},
    {kExitInterrupted, "interrupted by Ctrl-C or SIGTERM"},
};

}  // namespace

ExitCode ExitCodeForStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kExitUsage;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return kExitDenied;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return kExitConflict;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnavailable;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitFailure;
  }
}

ExitCode ExitCodeForState(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_SUCCEEDED:
      return kExitOk;
    case v1::JOB_STATE_FAILED:
      return kExitJobFailed;
    case v1::JOB_STATE_CANCELLED:
      return kExitJobCancelled;
    default:
      return kExitFailure;
  }
}

std::string ExitCodesHelp() {
  std::string help = "Exit codes of latentforge:\n";
  for (const ExitCodeText& entry : kTexts) {
    absl::StrAppend(&help,
                    absl::StrFormat("  %3d  %s\n", static_cast<int>(entry.code), entry.text));
  }
  return help;
}

}  // namespace latentforge::client
