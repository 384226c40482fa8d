#include "client/progress_view.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/job_tracker.h"
#include "client/progress_text.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

constexpr absl::Duration kFrameInterval = absl::Milliseconds(100);
// How long a display may stand still before its ETA is brought up to date.
constexpr absl::Duration kIdleInterval = absl::Seconds(1);

}  // namespace

void LiveView::Show(const v1::Job& job, const v1::JobEvent* event) {
  job_ = job;
  shown_ = true;
  changed_ = true;
  if (event == nullptr || event->has_progress()) eta_at_ = clock_.Monotonic();
  const std::string line = event == nullptr ? "" : EventLine(*event, job.status().max_attempts());
  if (!line.empty()) {
    Paint(line);
  } else {
    Tick();
  }
}

void LiveView::Notice(absl::string_view line) { Paint(line); }

void LiveView::Tick() {
  if (!shown_) return;
  const absl::Duration age = clock_.Monotonic() - painted_at_;
  if (painted_lines_ == 0 || (changed_ && age >= kFrameInterval) || age >= kIdleInterval) Paint("");
}

void LiveView::Finish() {
  if (painted_lines_ > 0) terminal_.Write(Erase());
  painted_lines_ = 0;
  shown_ = false;
}

std::string LiveView::Erase() const {
  std::string text;
  for (int i = 0; i < painted_lines_; ++i) text += "\x1b[1A\x1b[2K";
  return text;
}

void LiveView::Paint(absl::string_view record_line) {
  std::string text = Erase();
  if (!record_line.empty()) absl::StrAppend(&text, record_line, "\n");
  painted_lines_ = 0;
  if (shown_ && !IsTerminal(job_.status().state())) {
    FrameStyle style{terminal_.columns(), terminal_.color(), terminal_.unicode(), -1};
    if (job_.status().eta_seconds() > 0 && job_.status().state() == v1::JOB_STATE_RUNNING) {
      const double age = absl::ToDoubleSeconds(clock_.Monotonic() - eta_at_);
      style.eta_seconds = std::max(0.0, job_.status().eta_seconds() - age);
    }
    const std::vector<std::string> frame = BuildFrame(job_, style);
    for (const std::string& line : frame) absl::StrAppend(&text, line, "\n");
    painted_lines_ = static_cast<int>(frame.size());
  }
  // One write a frame, so that no half frame is seen.
  terminal_.Write(text);
  painted_at_ = clock_.Monotonic();
  changed_ = false;
}

void PlainView::Show(const v1::Job& job, const v1::JobEvent* event) {
  const absl::Duration now = clock_.Monotonic();
  if (event == nullptr || event->has_phase_started()) {
    const std::string line = event == nullptr ? "" : EventLine(*event, job.status().max_attempts());
    terminal_.Write(absl::StrCat(line.empty() ? ProgressLine(job) : line, "\n"));
    progress_at_ = now;
    return;
  }
  if (const std::string line = EventLine(*event, job.status().max_attempts()); !line.empty()) {
    terminal_.Write(absl::StrCat(line, "\n"));
  } else if (event->has_progress() && now - progress_at_ >= interval_) {
    terminal_.Write(absl::StrCat(ProgressLine(job), "\n"));
    progress_at_ = now;
  }
}

void PlainView::Notice(absl::string_view line) { terminal_.Write(absl::StrCat(line, "\n")); }

std::unique_ptr<ProgressView> MakeProgressView(Terminal& terminal, Clock& clock) {
  if (terminal.interactive()) return std::make_unique<LiveView>(terminal, clock);
  return std::make_unique<PlainView>(terminal, clock);
}

}  // namespace latentforge::client
