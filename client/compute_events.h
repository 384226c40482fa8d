// The events of a compute process that runs without a server, as progress.
#pragma once

#include <deque>
#include <string>

#include "absl/status/status.h"
#include "client/job_tracker.h"
#include "client/progress_view.h"
#include "latentforge/v1/event.pb.h"

namespace latentforge::client {

// Takes what the process prints: AttemptEvents in proto3 JSON, one a line, between
// lines of its log. Not safe for concurrent use; borrows the view.
class ComputeEvents {
 public:
  // `kind` says what is measured: the events of a lone measurement do not know.
  ComputeEvents(ProgressView& view, v1::PerplexityKind kind);

  void TakeLine(const std::string& line);

  // Why the process failed: its error event, or the last lines of its log. `ending`
  // is "exit code 3" and the like.
  absl::Status Failure(const std::string& ending) const;

 private:
  void TakeEvent(const v1::AttemptEvent& event);

  ProgressView& view_;
  const v1::PerplexityKind kind_;
  JobTracker tracker_;
  std::deque<std::string> log_tail_;
  v1::ConversionError error_;
};

}  // namespace latentforge::client
