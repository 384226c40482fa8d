#include "worker/agent/event_relay.h"

#include <utility>
#include <vector>

#include "base/log.h"

namespace latentforge::agent {

EventRelay::EventRelay(LeaseClient& client, Random random, AttemptControl& control, v1::Lease lease,
                       EventBufferLimits limits)
    : client_(client),
      control_(control),
      random_(std::move(random)),
      lease_(std::move(lease)),
      buffer_(limits),
      thread_([this] { Loop(); }) {}

EventRelay::~EventRelay() { Close(); }

absl::Status EventRelay::Push(v1::AttemptEvent event) {
  absl::MutexLock lock(&mutex_);
  return buffer_.Push(std::move(event));
}

void EventRelay::Close() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

bool EventRelay::Report(const v1::ReportEventsRequest& request) {
  const absl::StatusOr<v1::ReportEventsResponse> response = client_.ReportEvents(request);
  if (response.ok()) {
    control_.RequestStop(StopWantedBy(response->command()));
    return true;
  }
  if (IsLeaseLost(response.status())) {
    control_.RequestStop(StopReason::kLeaseLost);
    return true;
  }
  const bool transient = IsTransient(response.status());
  Log(transient ? Severity::kWarning : Severity::kError,
      transient ? "events wait for the server" : "the server refused events",
      {{"job", lease_.job()}, {"error", response.status().ToString()}});
  return !transient;
}

void EventRelay::Loop() {
  Backoff backoff(absl::Milliseconds(100), absl::Seconds(5), random_);
  while (true) {
    v1::ReportEventsRequest request;
    *request.mutable_lease() = lease_;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(
          +[](EventRelay* relay) ABSL_NO_THREAD_SAFETY_ANALYSIS { return relay->HasWork(); },
          this));
      for (v1::AttemptEvent& event : buffer_.Batch()) *request.add_events() = std::move(event);
      if (request.events().empty()) return;  // closing, all done
    }
    if (!Report(request)) {
      if (!control_.Pause(backoff.Next())) return;
      continue;
    }
    backoff.Reset();
    if (!control_.Pause(absl::ZeroDuration())) return;
    absl::MutexLock lock(&mutex_);
    buffer_.Acknowledge(request.events().rbegin()->sequence());
  }
}

}  // namespace latentforge::agent
