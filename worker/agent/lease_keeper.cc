#include "worker/agent/lease_keeper.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace latentforge::agent {
namespace {

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

}  // namespace

LeaseKeeper::LeaseKeeper(LeaseClient& client, const Clock& clock, Random random,
                         AttemptControl& control, LeaseTerms terms)
    : client_(client),
      clock_(clock),
      random_(std::move(random)),
      control_(control),
      terms_(std::move(terms)),
      timer_(terms_.received, terms_.duration),
      // At once: the reply to a waiting call says little about when the lease began.
      next_beat_(terms_.received),
      thread_([this] {
        control_.SetDeadline(timer_.deadline());
        Loop();
      }) {}

LeaseKeeper::~LeaseKeeper() {
  stopping_.Set();
  thread_.join();
}

void LeaseKeeper::ProcessEnded() {
  absl::MutexLock lock(&mutex_);
  process_ended_ = true;
}

void LeaseKeeper::HoldToDeadline() {
  absl::MutexLock lock(&mutex_);
  if (!process_ended_) control_.RequestStop(StopReason::kLeaseDeadline);
}

// Waits for the next beat or the deadline, whichever is first. False when stopped.
bool LeaseKeeper::WaitForNextBeat() {
  while (!stopping_.IsSet()) {
    const absl::Duration now = clock_.Monotonic();
    const bool expired = now >= timer_.deadline();
    if (expired) HoldToDeadline();
    if (now >= next_beat_) return true;
    const absl::Duration until = expired ? next_beat_ : std::min(next_beat_, timer_.deadline());
    stopping_.WaitFor(until - now);
  }
  return false;
}

bool LeaseKeeper::Beat(Backoff& backoff) {
  const absl::Duration sent = clock_.Monotonic();
  // Back in time to notice the deadline, but never too short to be answered.
  absl::Duration timeout = timer_.deadline() - sent;
  if (timeout <= absl::ZeroDuration()) timeout = absl::InfiniteDuration();
  v1::HeartbeatRequest request;
  *request.mutable_lease() = terms_.lease;
  request.set_worker(terms_.worker);
  if (control_.reason() == StopReason::kPause) request.set_obeying(v1::ATTEMPT_COMMAND_PAUSE);
  const absl::StatusOr<v1::HeartbeatResponse> response = client_.Heartbeat(request, timeout);
  if (response.ok()) {
    backoff.Reset();
    timer_.Extend(sent, FromProto(response->lease_duration()));
    control_.SetDeadline(timer_.deadline());
    next_beat_ = sent + terms_.interval;
    control_.RequestStop(StopWantedBy(response->command()));
    return true;
  }
  if (IsLeaseLost(response.status())) {
    control_.RequestStop(StopReason::kLeaseLost);
    return false;
  }
  Log(Severity::kWarning, "heartbeat failed",
      {{"job", terms_.lease.job()}, {"error", response.status().ToString()}});
  next_beat_ = clock_.Monotonic() + std::min(backoff.Next(), terms_.interval);
  return true;
}

void LeaseKeeper::Loop() {
  Backoff backoff(absl::Milliseconds(100), absl::Seconds(5), random_);
  while (WaitForNextBeat()) {
    if (!Beat(backoff)) return;
  }
}

}  // namespace latentforge::agent
