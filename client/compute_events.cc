#include "client/compute_events.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/error.h"
#include "client/text_format.h"
#include "google/protobuf/util/json_util.h"

namespace latentforge::client {
namespace {

constexpr size_t kTailLines = 10;

// The part of an attempt's event that a job's watcher also sees.
v1::JobEvent ToJobEvent(const v1::AttemptEvent& event) {
  v1::JobEvent result;
  *result.mutable_time() = event.time();
  switch (event.kind_case()) {
    case v1::AttemptEvent::kPhaseStarted:
      *result.mutable_phase_started() = event.phase_started();
      break;
    case v1::AttemptEvent::kPhaseFinished:
      *result.mutable_phase_finished() = event.phase_finished();
      break;
    case v1::AttemptEvent::kProgress:
      *result.mutable_progress() = event.progress();
      break;
    case v1::AttemptEvent::kPerplexity:
      *result.mutable_perplexity() = event.perplexity();
      break;
    case v1::AttemptEvent::kHealing:
      *result.mutable_healing() = event.healing();
      break;
    case v1::AttemptEvent::kLog:
      *result.mutable_log() = event.log();
      break;
    default:
      break;
  }
  return result;
}

}  // namespace

ComputeEvents::ComputeEvents(ProgressView& view, v1::PerplexityKind kind)
    : view_(view), kind_(kind) {
  v1::WatchJobResponse start;
  start.mutable_snapshot()->mutable_job()->mutable_status()->set_state(v1::JOB_STATE_RUNNING);
  tracker_.Apply(start).IgnoreError();  // a first snapshot always fits
}

void ComputeEvents::TakeLine(const std::string& line) {
  if (absl::StartsWith(line, "{")) {
    v1::AttemptEvent event;
    if (google::protobuf::util::JsonStringToMessage(line, &event).ok()) return TakeEvent(event);
  }
  if (line.empty()) return;
  log_tail_.push_back(Printable(line));
  if (log_tail_.size() > kTailLines) log_tail_.pop_front();
}

void ComputeEvents::TakeEvent(const v1::AttemptEvent& event) {
  if (event.has_error()) error_ = event.error();
  v1::WatchJobResponse message;
  *message.mutable_event() = ToJobEvent(event);
  if (message.event().kind_case() == v1::JobEvent::KIND_NOT_SET) return;
  if (message.event().has_perplexity())
    message.mutable_event()->mutable_perplexity()->set_kind(kind_);
  message.mutable_event()->set_sequence(tracker_.sequence() + 1);
  const absl::StatusOr<JobTracker::Change> change = tracker_.Apply(message);
  if (change.ok()) view_.Show(tracker_.job(), &message.event());
}

absl::Status ComputeEvents::Failure(const std::string& ending) const {
  if (!error_.message().empty()) {
    const std::string message = Printable(error_.message());
    return WithReason(error_.error_class() == v1::ERROR_CLASS_USER
                          ? absl::InvalidArgumentError(message)
                          : absl::InternalError(message),
                      error_.reason());
  }
  std::string message = absl::StrCat("latentforge-convert ended with ", ending);
  for (const std::string& line : log_tail_) absl::StrAppend(&message, "\n  | ", line);
  return absl::InternalError(message);
}

}  // namespace latentforge::client
