#include "client/job_tracker.h"

#include "absl/strings/str_cat.h"

namespace latentforge::client {
namespace {

void ApplyState(const v1::StateChanged& change, v1::Job& job) {
  job.set_etag(change.etag());
  v1::JobStatus& status = *job.mutable_status();
  status.set_state(change.state());
  if (change.attempt() > 0) status.set_attempt(change.attempt());
  if (!change.worker().empty()) status.set_worker(change.worker());
  if (change.state() == v1::JOB_STATE_RUNNING) {  // an attempt begins
    status.clear_phase();
    status.clear_percent();
    status.set_eta_seconds(-1);
    status.clear_tokens_per_second();
    status.clear_detail();
    status.clear_phases();
    job.clear_queue_deadline_time();
  }
  if (change.state() == v1::JOB_STATE_QUEUED || change.state() == v1::JOB_STATE_PAUSED) {
    status.set_eta_seconds(-1);  // nothing moves
    status.clear_tokens_per_second();
  }
  if (change.max_attempts() > 0) status.set_max_attempts(change.max_attempts());
  status.clear_error();
  if (change.has_error()) *status.mutable_error() = change.error();
  if (change.has_result()) *status.mutable_result() = change.result();
}

void ApplyEvent(const v1::JobEvent& event, v1::Job& job) {
  v1::JobStatus& status = *job.mutable_status();
  job.set_last_sequence(event.sequence());
  *job.mutable_update_time() = event.time();
  switch (event.kind_case()) {
    case v1::JobEvent::kStateChanged:
      ApplyState(event.state_changed(), job);
      job.clear_end_time();
      if (IsTerminal(status.state())) *job.mutable_end_time() = event.time();
      break;
    case v1::JobEvent::kPhaseStarted:
      status.set_phase(event.phase_started().phase());
      status.clear_detail();
      status.clear_tokens_per_second();
      status.set_eta_seconds(-1);  // that of the phase before
      break;
    case v1::JobEvent::kPhaseFinished: {
      const v1::PhaseFinished& finished = event.phase_finished();
      status.set_phase(finished.phase());
      v1::PhaseTiming& timing = *status.add_phases();
      timing.set_phase(finished.phase());
      timing.set_seconds(finished.seconds());
      timing.set_tokens_per_second(finished.tokens_per_second());
      break;
    }
    case v1::JobEvent::kProgress: {
      const v1::Progress& progress = event.progress();
      status.set_phase(progress.phase());
      status.set_percent(progress.percent());
      status.set_eta_seconds(progress.eta_seconds());
      status.set_tokens_per_second(progress.tokens_per_second());
      status.set_detail(progress.detail());
      *status.mutable_last_progress_time() = event.time();
      break;
    }
    case v1::JobEvent::kPerplexity:
      *status.mutable_perplexity() = event.perplexity();
      break;
    default:
      break;
  }
}

}  // namespace

bool IsTerminal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

absl::StatusOr<JobTracker::Change> JobTracker::Apply(const v1::WatchJobResponse& message) {
  switch (message.message_case()) {
    case v1::WatchJobResponse::kSnapshot: {
      const v1::JobSnapshot& snapshot = message.snapshot();
      // A resumed watch repeats the snapshot; the missed events follow, so only
      // the first one moves the sequence.
      if (has_snapshot_) return Change::kNothing;
      job_ = snapshot.job();
      snapshot_sequence_ = snapshot.sequence();
      sequence_ = after_.value_or(snapshot_sequence_);
      has_snapshot_ = true;
      replayed_ = job_;
      replayed_.clear_status();
      replayed_.mutable_status()->set_max_attempts(job_.status().max_attempts());
      return Change::kSnapshot;
    }
    case v1::WatchJobResponse::kEvent: {
      const v1::JobEvent& event = message.event();
      if (event.sequence() <= sequence_) return Change::kNothing;
      if (event.sequence() != sequence_ + 1) {
        return absl::DataLossError(absl::StrCat("watch of ", job_.name(), ": event ",
                                                event.sequence(), " came after event ", sequence_));
      }
      sequence_ = event.sequence();
      ApplyEvent(event, sequence_ > snapshot_sequence_ ? job_ : replayed_);
      return Change::kEvent;
    }
    default:
      return Change::kNothing;
  }
}

}  // namespace latentforge::client
