#include "worker/agent/child_session.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status_macros.h"

namespace latentforge::agent {
namespace {

v1::Phase PhaseOf(const v1::AttemptEvent& event, v1::Phase otherwise) {
  if (event.has_phase_started()) return event.phase_started().phase();
  if (event.has_progress()) return event.progress().phase();
  return otherwise;
}

}  // namespace

ChildSession::ChildSession(ChildProcess& child, AttemptControl& control,
                           const SessionRelays& relays, const Clock& clock, SessionOptions options,
                           std::string job)
    : child_(child),
      control_(control),
      relays_(relays),
      clock_(clock),
      options_(options),
      job_(std::move(job)),
      tail_(options.stderr_lines) {}

void ChildSession::TakeLine(const StderrLine& line) {
  Log(Severity::kInfo, line.printable, {{"job", job_}, {"pid", std::to_string(child_.pid())}});
  relays_.logs.Push(line.bytes, line.truncated);
}

void ChildSession::ObeyControl(absl::Duration now) {
  const StopReason reason = control_.reason();
  if (reason >= StopReason::kLeaseDeadline) {
    KillBy(now);
  } else if (reason != StopReason::kNone && !terminated_) {
    terminated_ = true;
    child_.Signal(SIGTERM);
    KillBy(now + options_.stop_grace);
  }
}

absl::Status ChildSession::TakeEvent(v1::AttemptEvent event) {
  facts_->phase = PhaseOf(event, facts_->phase);
  if (event.has_result()) {
    facts_->result = std::move(*event.mutable_result());
  } else if (event.has_error()) {
    facts_->error = std::move(*event.mutable_error());
  } else {
    return relays_.events.Push(std::move(event));
  }
  KillBy(clock_.Monotonic() + options_.final_grace);
  return absl::OkStatus();
}

void ChildSession::TakeOutput(const ChildOutput& output) {
  tail_.Feed(output.err, [this](const StderrLine& line) { TakeLine(line); });
  if (!facts_->stream.ok()) return;
  facts_->stream = reader_.Feed(
      output.out, [this](v1::AttemptEvent event) { return TakeEvent(std::move(event)); });
  if (!facts_->stream.ok()) KillBy(clock_.Monotonic());
}

void ChildSession::Run(AttemptFacts* facts) {
  facts_ = facts;
  bool killed = false;
  while (!child_.finished()) {
    const absl::Duration now = clock_.Monotonic();
    control_.ClearWake();
    ObeyControl(now);
    if (now >= kill_at_ && !killed) {
      killed = true;
      child_.Signal(SIGKILL);
    }
    const absl::Duration timeout = killed ? absl::InfiniteDuration() : kill_at_ - now;
    ChildOutput output;
    if (const absl::Status polled = child_.Poll(control_.wake_fd(), timeout, &output);
        !polled.ok()) {
      facts->stream.Update(polled);
      KillBy(now);
    }
    TakeOutput(output);
  }
  tail_.Finish([this](const StderrLine& line) { TakeLine(line); });
  relays_.logs.Finish();  // its thread sends the rest while events are reported
  facts->exit = child_.exit_status();
  facts->stop = control_.reason();
  facts->overdue = killed && facts->stop == StopReason::kNone && facts->stream.ok();
  facts->stderr_tail.assign(tail_.lines().begin(), tail_.lines().end());
  // A process that was killed may have been within a line; how it ended says more.
  if (facts->exit->ok() && facts->stream.ok()) facts->stream = reader_.Finish();
}

}  // namespace latentforge::agent
