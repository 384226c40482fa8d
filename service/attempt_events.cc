#include "service/attempt_events.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

constexpr size_t kMaxLogBytes = 4096;
constexpr size_t kMaxDetailBytes = 256;
constexpr double kProgressStep = 0.1;  // per cent
constexpr absl::Duration kProgressInterval = absl::Seconds(1);
constexpr absl::Duration kProgressHeartbeat = absl::Seconds(30);

double Percent(double value) { return std::isfinite(value) ? std::clamp(value, 0.0, 100.0) : 0; }

double NotNegative(double value) { return std::isfinite(value) ? std::max(value, 0.0) : 0; }

// A worker's figures are shown and compared: NaN and infinity must not pass.
v1::Progress Sane(const v1::Progress& progress) {
  v1::Progress sane = progress;
  sane.set_percent(Percent(progress.percent()));
  sane.set_phase_percent(Percent(progress.phase_percent()));
  if (!std::isfinite(progress.eta_seconds())) sane.set_eta_seconds(-1);
  sane.set_tokens_per_second(NotNegative(progress.tokens_per_second()));
  sane.set_detail(Truncated(progress.detail(), kMaxDetailBytes));
  return sane;
}

bool WorthKeeping(const JobRecord& record, const v1::Progress& progress, v1::Phase phase_before,
                  absl::Time now) {
  if (progress.phase() != phase_before) return true;
  const absl::Duration since = now - record.progress_event_time;
  if (since >= kProgressHeartbeat) return true;
  const double moved = std::abs(progress.percent() - record.progress_event_percent);
  return since >= kProgressInterval && moved >= kProgressStep;
}

void ApplyProgress(const v1::Progress& reported, absl::Time now, Transition& transition) {
  JobRecord& record = transition.next;
  v1::JobStatus& status = *record.job.mutable_status();
  const v1::Progress progress = Sane(reported);
  const v1::Phase phase_before = status.phase();
  status.set_phase(progress.phase());
  status.set_percent(progress.percent());
  status.set_eta_seconds(progress.eta_seconds());
  status.set_tokens_per_second(progress.tokens_per_second());
  status.set_detail(progress.detail());
  if (!WorthKeeping(record, progress, phase_before, now)) return;
  record.progress_event_time = now;
  record.progress_event_percent = progress.percent();
  *AppendEvent(transition, now).mutable_progress() = progress;
}

// A worker that repeats phases must not make the record grow without end.
void NoteFinished(const v1::PhaseFinished& finished, v1::JobStatus& status) {
  if (status.phases_size() >= v1::Phase_ARRAYSIZE) return;
  v1::PhaseTiming& timing = *status.add_phases();
  timing.set_phase(finished.phase());
  timing.set_seconds(NotNegative(finished.seconds()));
  timing.set_tokens_per_second(NotNegative(finished.tokens_per_second()));
}

void ApplyEvent(const v1::AttemptEvent& event, absl::Time now, Transition& transition) {
  v1::JobStatus& status = *transition.next.job.mutable_status();
  *status.mutable_last_progress_time() = ToProto(now);
  switch (event.kind_case()) {
    case v1::AttemptEvent::kPhaseStarted:
      status.set_phase(event.phase_started().phase());
      *AppendEvent(transition, now).mutable_phase_started() = event.phase_started();
      break;
    case v1::AttemptEvent::kPhaseFinished:
      NoteFinished(event.phase_finished(), status);
      *AppendEvent(transition, now).mutable_phase_finished() = event.phase_finished();
      break;
    case v1::AttemptEvent::kPerplexity:
      *status.mutable_perplexity() = event.perplexity();
      *AppendEvent(transition, now).mutable_perplexity() = event.perplexity();
      break;
    case v1::AttemptEvent::kHealing:
      *AppendEvent(transition, now).mutable_healing() = event.healing();
      break;
    case v1::AttemptEvent::kLog: {
      v1::LogLine& line = *AppendEvent(transition, now).mutable_log();
      line = event.log();
      line.set_text(Truncated(event.log().text(), kMaxLogBytes));
      break;
    }
    case v1::AttemptEvent::kProgress:  // coalesced by the caller
    // Result and error become part of the state with CompleteAttempt.
    case v1::AttemptEvent::kResult:
    case v1::AttemptEvent::kError:
    case v1::AttemptEvent::KIND_NOT_SET:
      break;
  }
}

absl::Status CheckOrder(const std::vector<v1::AttemptEvent>& events) {
  int64_t last = 0;
  for (const v1::AttemptEvent& event : events) {
    if (event.sequence() <= last) {
      return MakeFieldError("EVENT_OUT_OF_ORDER",
                            {{"events", absl::StrCat("sequence ", event.sequence(), " follows ",
                                                     last, "; expected a higher one")}});
    }
    last = event.sequence();
  }
  return absl::OkStatus();
}

}  // namespace

v1::JobEvent& AppendEvent(Transition& transition, absl::Time now) {
  v1::Job& job = transition.next.job;
  job.set_last_sequence(job.last_sequence() + 1);
  v1::JobEvent& event = transition.events.emplace_back();
  event.set_sequence(job.last_sequence());
  *event.mutable_time() = ToProto(now);
  return event;
}

std::string Truncated(absl::string_view text, size_t bytes) {
  if (text.size() <= bytes) return std::string(text);
  size_t end = bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end));
}

absl::Status ApplyAttemptEvents(const std::vector<v1::AttemptEvent>& events, absl::Time now,
                                Transition& transition) {
  LF_RETURN_IF_ERROR(CheckOrder(events));
  const v1::AttemptEvent* pending = nullptr;  // progress not yet applied
  for (const v1::AttemptEvent& event : events) {
    if (event.sequence() <= transition.next.attempt_sequence) continue;
    transition.next.attempt_sequence = event.sequence();
    transition.changed = true;
    // A later progress of the same phase replaces an earlier one; anything else
    // comes after it.
    const bool same_phase = pending != nullptr && event.has_progress() &&
                            event.progress().phase() == pending->progress().phase();
    if (pending != nullptr && !same_phase) ApplyProgress(pending->progress(), now, transition);
    pending = event.has_progress() ? &event : nullptr;
    ApplyEvent(event, now, transition);
  }
  if (pending != nullptr) ApplyProgress(pending->progress(), now, transition);
  return absl::OkStatus();
}

}  // namespace latentforge::service
