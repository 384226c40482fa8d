#include "client/progress_text.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/text_format.h"
#include "proto/enum_text.h"

namespace latentforge::client {
namespace {

std::string ModelText(v1::PerplexityKind kind) {
  return kind == v1::PERPLEXITY_KIND_CONVERTED ? "converted" : "original";
}

// What the job is doing now, in one word.
std::string Activity(const v1::JobStatus& status) {
  if (status.state() == v1::JOB_STATE_RUNNING && status.phase() != v1::PHASE_UNSPECIFIED) {
    return PhaseText(status.phase());
  }
  return StateText(status.state());
}

std::string Bar(double percent, int width, bool unicode) {
  const double share = std::isfinite(percent) ? std::clamp(percent / 100, 0.0, 1.0) : 0;
  const int full = static_cast<int>(std::lround(share * width));
  std::string bar;
  for (int i = 0; i < width; ++i) {
    bar += unicode ? (i < full ? "█" : "░") : (i < full ? "#" : ".");
  }
  return bar;
}

std::string Speed(double tokens_per_second) {
  if (!std::isfinite(tokens_per_second) || tokens_per_second <= 0) return "";
  return absl::StrCat(FormatCount(static_cast<int64_t>(std::min(tokens_per_second + 0.5, 1e15))),
                      " tokens/s");
}

std::string DetailLine(const v1::JobStatus& status, bool unicode) {
  std::vector<std::string> parts;
  if (!status.detail().empty()) parts.push_back(Printable(status.detail()));
  if (status.has_perplexity() && status.perplexity().windows_done() > 0) {
    parts.push_back(PerplexityText(status.perplexity()));
  }
  if (status.attempt() > 1) {
    parts.push_back(absl::StrCat("attempt ", status.attempt(), " of ", status.max_attempts()));
  }
  const bool waits =
      status.state() == v1::JOB_STATE_QUEUED || status.state() == v1::JOB_STATE_PAUSED;
  if (waits && status.has_error()) {
    parts.push_back(absl::StrCat("after: ", Printable(status.error().message())));
  }
  return absl::StrJoin(parts, unicode ? " · " : ", ");
}

std::string StateLine(const v1::StateChanged& change, int max_attempts) {
  std::string line = StateText(change.state());
  if (change.state() == v1::JOB_STATE_QUEUED && change.has_error()) {
    line =
        absl::StrCat("attempt ", change.attempt(), " of ", max_attempts, " failed, trying again");
  }
  if (change.state() == v1::JOB_STATE_RUNNING) {
    if (!change.worker().empty()) absl::StrAppend(&line, " on ", Printable(change.worker()));
    if (change.attempt() > 1) absl::StrAppend(&line, ", attempt ", change.attempt());
  }
  // What ends the job ends the command too, with this error.
  if (change.state() == v1::JOB_STATE_QUEUED && change.has_error()) {
    absl::StrAppend(&line, ": ", Printable(change.error().message()), " [",
                    Printable(change.error().reason()), "]");
  }
  return line;
}

std::string FinishedLine(const v1::PhaseFinished& finished) {
  std::string line =
      absl::StrCat(PhaseText(finished.phase()), " done in ", FormatSeconds(finished.seconds()));
  const std::string speed = Speed(finished.tokens_per_second());
  if (!speed.empty()) absl::StrAppend(&line, ", ", speed);
  return line;
}

}  // namespace

std::string PhaseText(v1::Phase phase) { return ShortEnumName(phase); }

std::string StateText(v1::JobState state) { return ShortEnumName(state); }

std::string PerplexityText(const v1::Perplexity& perplexity) {
  std::string text = absl::StrCat("perplexity ", FormatFigure(perplexity.value()), " ",
                                  ModelText(perplexity.kind()));
  if (perplexity.windows_done() < perplexity.windows_total()) {
    absl::StrAppend(&text, " after ", perplexity.windows_done(), " of ", perplexity.windows_total(),
                    " windows");
  }
  return text;
}

std::vector<std::string> BuildFrame(const v1::Job& job, const FrameStyle& style) {
  const v1::JobStatus& status = job.status();
  std::string right = absl::StrFormat(" %5.1f %%", std::clamp(status.percent(), 0.0, 100.0));
  if (style.eta_seconds >= 0) {
    absl::StrAppend(&right, "  ETA ", FormatSeconds(style.eta_seconds));
  }
  const std::string speed = Speed(status.tokens_per_second());
  if (!speed.empty()) absl::StrAppend(&right, "  ", speed);
  const std::string left = absl::StrFormat("%-12s", Activity(status));
  // One column stays free: writing into the last one wraps on some terminals.
  const int usable = style.columns - 1;
  const int width = std::min(40, usable - DisplayWidth(left) - DisplayWidth(right) - 1);
  std::vector<std::string> lines;
  if (width >= 5) {
    const std::string bar = Bar(status.percent(), width, style.unicode);
    lines.push_back(absl::StrCat(left, " ", style.color ? "\x1b[32m" : "", bar,
                                 style.color ? "\x1b[0m" : "", right));
  } else {
    lines.push_back(Truncate(absl::StrCat(left, right), usable));
  }
  const std::string detail = DetailLine(status, style.unicode);
  lines.push_back(Truncate(absl::StrCat("  ", detail), usable));
  return lines;
}

std::string ProgressLine(const v1::Job& job) {
  const v1::JobStatus& status = job.status();
  std::vector<std::string> parts = {Activity(status)};
  // Nothing is done before a worker has it.
  if (status.percent() > 0 || status.phase() != v1::PHASE_UNSPECIFIED) {
    parts[0] += absl::StrFormat(" %.0f %%", std::clamp(status.percent(), 0.0, 100.0));
  }
  const std::string speed = Speed(status.tokens_per_second());
  if (!speed.empty()) parts.push_back(speed);
  if (status.eta_seconds() > 0) {
    parts.push_back(absl::StrCat("ETA ", FormatSeconds(status.eta_seconds())));
  }
  const std::string detail = DetailLine(status, false);
  if (!detail.empty()) parts.push_back(detail);
  return absl::StrJoin(parts, ", ");
}

// Steps are progress; what was measured is worth a line.
std::string HealingLine(const v1::Healing& healing) {
  if (!healing.has_divergence()) return "";
  return absl::StrFormat(
      "healing: step %d of %d, divergence %s nats, perplexity %s on held-back text", healing.step(),
      healing.steps_total(), FormatFigure(healing.divergence()),
      FormatFigure(healing.perplexity()));
}

std::string EventLine(const v1::JobEvent& event, int max_attempts) {
  switch (event.kind_case()) {
    case v1::JobEvent::kStateChanged:
      return StateLine(event.state_changed(), max_attempts);
    case v1::JobEvent::kPhaseStarted:
      if (!event.phase_started().resumed()) return "";
      return absl::StrCat(PhaseText(event.phase_started().phase()),
                          ": continues what an earlier attempt left");
    case v1::JobEvent::kPhaseFinished:
      return FinishedLine(event.phase_finished());
    case v1::JobEvent::kPerplexity:
      if (event.perplexity().windows_done() < event.perplexity().windows_total()) return "";
      return PerplexityText(event.perplexity());
    case v1::JobEvent::kHealing:
      return HealingLine(event.healing());
    case v1::JobEvent::kLog:
      if (event.log().severity() == v1::LogLine::SEVERITY_INFO) {
        return Printable(event.log().text());
      }
      return absl::StrCat(
          event.log().severity() == v1::LogLine::SEVERITY_ERROR ? "error: " : "warning: ",
          Printable(event.log().text()));
    default:
      return "";
  }
}

}  // namespace latentforge::client
