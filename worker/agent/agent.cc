#include "worker/agent/agent.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace latentforge::agent {

Agent::Agent(LeaseClient& client, AttemptRunner& runner, Random random, AgentOptions options)
    : client_(client),
      runner_(runner),
      random_(std::move(random)),
      options_(std::move(options)),
      running_slots_(options_.info.slots()) {
  for (int slot = 0; slot < options_.info.slots(); ++slot) {
    slots_.emplace_back([this] { RunSlot(); });
  }
}

Agent::~Agent() {
  for (std::thread& slot : slots_) slot.join();
}

void Agent::Drain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  client_.StopAcquiring();
  for (AttemptControl* attempt : attempts_) attempt->RequestStop(StopReason::kRelease);
}

void Agent::GiveUp() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  gave_up_ = true;
  client_.StopAll();
  for (AttemptControl* attempt : attempts_) attempt->GiveUp();
}

bool Agent::WaitUntilStopped(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &Agent::Stopped), timeout);
}

absl::Status Agent::refusal() const {
  absl::MutexLock lock(&mutex_);
  return refusal_;
}

bool Agent::SleepUnlessDraining(absl::Duration duration) {
  absl::MutexLock lock(&mutex_);
  return !mutex_.AwaitWithTimeout(absl::Condition(&draining_), duration);
}

void Agent::RunAttempt(const v1::AcquireLeaseResponse& grant) {
  absl::StatusOr<std::unique_ptr<AttemptControl>> control = AttemptControl::Create();
  if (!control.ok()) {
    // Without it nothing can be stopped; the lease runs out and another worker takes the job.
    Log(Severity::kError, "cannot run a lease", {{"error", control.status().ToString()}});
    SleepUnlessDraining(absl::Seconds(1));
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    attempts_.insert(control->get());
    if (draining_) (*control)->RequestStop(StopReason::kRelease);
    if (gave_up_) (*control)->GiveUp();
  }
  runner_.Run(grant, **control);
  absl::MutexLock lock(&mutex_);
  attempts_.erase(control->get());
}

bool Agent::TakeOne(absl::Duration wait, Backoff& backoff) {
  const absl::StatusOr<v1::AcquireLeaseResponse> grant = client_.Acquire(options_.info, wait);
  if (grant.ok()) {
    backoff.Reset();
    if (grant->has_lease()) RunAttempt(*grant);
    return SleepUnlessDraining(absl::ZeroDuration());
  }
  if (IsTransient(grant.status()) || grant.status().code() == absl::StatusCode::kAborted) {
    const absl::Duration pause = backoff.Next();
    if (!SleepUnlessDraining(absl::ZeroDuration())) return false;  // we ended the call
    Log(Severity::kWarning, "no lease from the server",
        {{"error", grant.status().ToString()}, {"retry", absl::FormatDuration(pause)}});
    return SleepUnlessDraining(pause);
  }
  absl::MutexLock lock(&mutex_);
  refusal_.Update(Annotate(grant.status(), "the server refuses this worker"));
  return false;
}

void Agent::RunSlot() {
  Backoff backoff(absl::Milliseconds(100), absl::Seconds(5), random_);
  // The first call does not wait: it shows at once whether the server takes us.
  bool more = TakeOne(absl::ZeroDuration(), backoff);
  while (more) more = TakeOne(options_.acquire_wait, backoff);
  absl::MutexLock lock(&mutex_);
  --running_slots_;
}

}  // namespace latentforge::agent
