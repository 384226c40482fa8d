// Shows a job's progress: live on a terminal, line by line elsewhere.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "client/terminal.h"
#include "latentforge/v1/job.pb.h"

namespace latentforge::client {

// Not safe for concurrent use. Implementations borrow terminal and clock.
class ProgressView {
 public:
  virtual ~ProgressView() = default;

  // The job after an event; `event` is null for a snapshot.
  virtual void Show(const v1::Job& job, const v1::JobEvent* event) = 0;
  // A line that is not about an event: "cancelling", "connection lost".
  virtual void Notice(absl::string_view line) = 0;
  // Called several times a second.
  virtual void Tick() = 0;
  // Leaves the terminal as it was found; the record stays. Call once, last.
  virtual void Finish() = 0;
};

// One display of two lines that is painted over, at most ten times a second, with
// an ETA that counts down; the record scrolls above it.
class LiveView : public ProgressView {
 public:
  LiveView(Terminal& terminal, Clock& clock) : terminal_(terminal), clock_(clock) {}

  void Show(const v1::Job& job, const v1::JobEvent* event) override;
  void Notice(absl::string_view line) override;
  void Tick() override;
  void Finish() override;

 private:
  void Paint(absl::string_view record_line);
  std::string Erase() const;

  Terminal& terminal_;
  Clock& clock_;
  v1::Job job_;
  bool shown_ = false;  // a snapshot came
  bool changed_ = false;
  int painted_lines_ = 0;
  absl::Duration painted_at_;
  absl::Duration eta_at_;
};

// The record, and a progress line at most every few seconds.
class PlainView : public ProgressView {
 public:
  PlainView(Terminal& terminal, Clock& clock, absl::Duration interval = absl::Seconds(5))
      : terminal_(terminal), clock_(clock), interval_(interval) {}

  void Show(const v1::Job& job, const v1::JobEvent* event) override;
  void Notice(absl::string_view line) override;
  void Tick() override {}
  void Finish() override {}

 private:
  Terminal& terminal_;
  Clock& clock_;
  const absl::Duration interval_;
  absl::Duration progress_at_ = -absl::InfiniteDuration();
};

// Shows nothing.
class SilentView : public ProgressView {
 public:
  void Show(const v1::Job&, const v1::JobEvent*) override {}
  void Notice(absl::string_view) override {}
  void Tick() override {}
  void Finish() override {}
};

// Live where the terminal is interactive, else plain.
std::unique_ptr<ProgressView> MakeProgressView(Terminal& terminal, Clock& clock);

}  // namespace latentforge::client
