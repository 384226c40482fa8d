#include "client/leftover.h"

#include "absl/strings/str_cat.h"

namespace latentforge::client {
namespace {

// A request that the same command would be refused again.
bool IsRefusal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsAlreadyExists(status) ||
         absl::IsNotFound(status) || absl::IsUnimplemented(status) ||
         absl::IsFailedPrecondition(status);
}

const char* KeptText(Leftover left) {
  switch (left) {
    case Leftover::kUnfinished:
      return "logs; the same command goes on with what is there";
    case Leftover::kEarlier:
      return "what an earlier run finished";
    default:
      return "logs and files of this run";
  }
}

}  // namespace

bool WorkIsDone(const v1::Job& job) {
  const v1::JobStatus& status = job.status();
  return status.state() != v1::JOB_STATE_FAILED ||
         status.error().error_class() == v1::ERROR_CLASS_USER ||
         status.error().reason() == "JOB_DEADLINE";
}

Leftover LeftBy(const absl::Status& ended, bool done, bool existed) {
  if (ended.ok()) return done ? Leftover::kNothing : Leftover::kUnfinished;
  if (IsRefusal(ended)) return existed ? Leftover::kEarlier : Leftover::kNothing;
  // Interrupted before there was a job.
  if (absl::IsCancelled(ended) && !existed) return Leftover::kNothing;
  return Leftover::kUnfinished;
}

absl::Status CloseWork(StateFolder& folder, Leftover left, bool keep, Terminal& terminal) {
  folder.Release();
  if (left == Leftover::kNothing && !keep) return folder.Remove();
  terminal.Write(absl::StrCat("kept: ", folder.path().string(), " (", KeptText(left), ")\n"));
  return absl::OkStatus();
}

}  // namespace latentforge::client
