// Follows one compute process from start to end.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "base/child_process.h"
#include "base/clock.h"
#include "worker/agent/attempt_control.h"
#include "worker/agent/event_reader.h"
#include "worker/agent/event_relay.h"
#include "worker/agent/log_relay.h"
#include "worker/agent/outcome.h"
#include "worker/agent/stderr_tail.h"

namespace latentforge::agent {

struct SessionOptions {
  absl::Duration stop_grace = absl::Seconds(10);   // from SIGTERM to SIGKILL
  absl::Duration final_grace = absl::Seconds(60);  // from the last event to SIGKILL
  size_t stderr_lines = 20;
};

// Where what the process prints goes. Borrows.
struct SessionRelays {
  EventRelay& events;
  LogRelay& logs;
};

// Reads events and log lines of the process, passes them on, and stops the
// process when the control says so: SIGTERM and, after the grace, SIGKILL for a
// release, a pause or a cancellation, SIGKILL at once for a lease that is gone, for a line
// that is no event, and after a last event without an end. Used once, by the
// thread that started the process.
class ChildSession {
 public:
  ChildSession(ChildProcess& child, AttemptControl& control, const SessionRelays& relays,
               const Clock& clock, SessionOptions options, std::string job);

  // Until the process has ended. Fills in what it learnt.
  void Run(AttemptFacts* facts);

 private:
  void ObeyControl(absl::Duration now);
  void TakeOutput(const ChildOutput& output);
  absl::Status TakeEvent(v1::AttemptEvent event);
  void KillBy(absl::Duration time) { kill_at_ = std::min(kill_at_, time); }
  void TakeLine(const StderrLine& line);

  ChildProcess& child_;
  AttemptControl& control_;
  const SessionRelays relays_;
  const Clock& clock_;
  const SessionOptions options_;
  const std::string job_;
  EventReader reader_;
  StderrTail tail_;
  AttemptFacts* facts_ = nullptr;
  bool terminated_ = false;
  absl::Duration kill_at_ = absl::InfiniteDuration();
};

}  // namespace latentforge::agent
