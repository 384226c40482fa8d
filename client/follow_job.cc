#include "client/follow_job.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/advice.h"
#include "client/connection_notice.h"
#include "client/error.h"
#include "client/job_tracker.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);

// One update of the watch; says whether the watch has ended.
absl::StatusOr<bool> Take(const WatchUpdate& update, const FollowOptions& options,
                          ConnectionNotice* connection, JobTracker* tracker, ProgressView* view) {
  switch (update.kind) {
    case WatchUpdate::Kind::kEnded:
      return update.status.ok() ? absl::StatusOr<bool>(true) : update.status;
    case WatchUpdate::Kind::kReconnecting:
      if (const auto line = connection->Lost(update.status); line.has_value()) view->Notice(*line);
      return false;
    case WatchUpdate::Kind::kRestarted:
      tracker->Restart();
      view->Notice("older events are gone; going on from where the job is now");
      return false;
    case WatchUpdate::Kind::kMessage:
      break;
  }
  if (const auto line = connection->Made(); line.has_value()) view->Notice(*line);
  LF_ASSIGN_OR_RETURN(const JobTracker::Change change, tracker->Apply(update.message));
  if (change == JobTracker::Change::kNothing) return false;
  if (options.on_message) options.on_message(update.message);
  // What the snapshot includes is told by the events that follow, where they do.
  if (change == JobTracker::Change::kSnapshot && tracker->replaying()) return false;
  view->Show(tracker->shown(),
             change == JobTracker::Change::kEvent ? &update.message.event() : nullptr);
  return tracker->ended();
}

absl::StatusCode CodeOf(const v1::ConversionError& error) {
  if (error.reason() == "JOB_DEADLINE" || error.reason() == "QUEUE_DEADLINE") {
    return absl::StatusCode::kDeadlineExceeded;
  }
  switch (error.error_class()) {
    case v1::ERROR_CLASS_USER:
      return absl::StatusCode::kInvalidArgument;
    case v1::ERROR_CLASS_RESOURCE:
      return absl::StatusCode::kResourceExhausted;
    default:
      return absl::StatusCode::kInternal;
  }
}

std::string NextStepAfter(v1::ErrorClass error_class, absl::string_view again) {
  switch (error_class) {
    case v1::ERROR_CLASS_USER:
      return absl::StrCat("correct what the message names and ", again);
    case v1::ERROR_CLASS_RESOURCE:
      return absl::StrCat("free the resource that the message names and ", again);
    default:
      return absl::StrCat(again, "; if it fails again, look into the worker's log");
  }
}

absl::Status Outcome(const v1::Job& job, absl::string_view subject, absl::string_view again) {
  const v1::ConversionError& error = job.status().error();
  switch (job.status().state()) {
    case v1::JOB_STATE_FAILED: {
      absl::Status status(CodeOf(error),
                          absl::StrCat(subject, " failed: ", Printable(error.message())));
      status = WithReason(status, error.reason());
      // A reason of a newer server: its class says something.
      if (AdviceOn(error.reason()).empty()) {
        status = WithNextStep(status, NextStepAfter(error.error_class(), again));
      }
      return WithExitCode(status, kExitJobFailed);
    }
    case v1::JOB_STATE_CANCELLED:
      return WithExitCode(absl::CancelledError(absl::StrCat(subject, " was cancelled")),
                          kExitJobCancelled);
    default:
      return absl::OkStatus();
  }
}

}  // namespace

absl::Status JobOutcome(const v1::Job& job) { return Outcome(job, job.name(), "submit again"); }

absl::Status ConversionOutcome(const v1::Job& job) {
  return Outcome(job, "the conversion", "run the same command again");
}

absl::StatusOr<FollowResult> FollowJob(ConversionClient& client, Clock& clock,
                                       const std::string& job, ProgressView& view,
                                       const FollowOptions& options) {
  JobWatch watch(client, clock, job, options.after, options.watch);
  JobTracker tracker(options.after);
  ConnectionNotice connection;
  const absl::Duration deadline = clock.Monotonic() + options.timeout;
  while (true) {
    if (options.check) LF_RETURN_IF_ERROR(options.check());
    if (options.interrupted && options.interrupted()) {
      return FollowResult{tracker.job(), tracker.sequence(), FollowEnd::kInterrupted};
    }
    if (clock.Monotonic() >= deadline)
      return FollowResult{tracker.job(), tracker.sequence(), FollowEnd::kTimedOut};
    if (options.notice && tracker.has_snapshot() && !tracker.replaying()) {
      if (const auto line = options.notice(tracker.job()); line.has_value()) view.Notice(*line);
    }
    const std::optional<WatchUpdate> update = watch.Next(kTick);
    if (!update.has_value()) {
      view.Tick();
      continue;
    }
    LF_ASSIGN_OR_RETURN(const bool ended, Take(*update, options, &connection, &tracker, &view));
    if (ended) return FollowResult{tracker.job(), tracker.sequence(), FollowEnd::kJobEnded};
  }
}

}  // namespace latentforge::client
