#include "worker/agent/agent.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "proto/channel_security.h"

namespace latentforge::agent {
namespace {

// How often a name that another process has is asked for, and how long beyond the
// server's figure: its clock starts when the call arrives.
constexpr absl::Duration kNamePause = absl::Seconds(1);
constexpr absl::Duration kNameMargin = absl::Milliseconds(500);

}  // namespace

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
  draining_.Set();
  client_.StopAcquiring();
  for (AttemptControl* attempt : attempts_) attempt->RequestStop(StopReason::kRelease);
}

void Agent::GiveUp() {
  absl::MutexLock lock(&mutex_);
  draining_.Set();
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

bool Agent::SleepUnlessDraining(absl::Duration duration) { return !draining_.WaitFor(duration); }

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
    if (draining_.IsSet()) (*control)->RequestStop(StopReason::kRelease);
    if (gave_up_) (*control)->GiveUp();
  }
  runner_.Run(grant, **control);
  absl::MutexLock lock(&mutex_);
  attempts_.erase(control->get());
}

bool Agent::AwaitName(const absl::Status& status, absl::Duration taken_for, Slot& slot) {
  if (!slot.name_patience.has_value()) {
    // A dead holder of the name stays silent, so that the time the server names runs out.
    slot.name_patience = taken_for + kNameMargin;
    Log(Severity::kWarning, "waiting for the name to become free, as after a restart",
        {{"error", std::string(status.message())},
         {"at_most", absl::FormatDuration(absl::Ceil(*slot.name_patience, absl::Seconds(1)))}});
  }
  const absl::Duration pause = std::min(*slot.name_patience, kNamePause);
  if (pause <= absl::ZeroDuration()) return false;
  *slot.name_patience -= pause;
  SleepUnlessDraining(pause);
  return true;
}

bool Agent::AfterRefusal(const absl::Status& status, Slot& slot) {
  if (const auto taken_for = NameTakenFor(status); taken_for.has_value()) {
    if (AwaitName(status, *taken_for, slot)) return SleepUnlessDraining(absl::ZeroDuration());
  } else if (absl::IsUnauthenticated(status) && !client_.EverReached()) {
    // Nothing is being replaced: this worker never got in.
  } else if (IsTransient(status) || status.code() == absl::StatusCode::kAborted) {
    const absl::Duration pause = slot.backoff.Next();
    if (!SleepUnlessDraining(absl::ZeroDuration())) return false;  // we ended the call
    Log(Severity::kWarning, "no lease from the server",
        {{"error", ClosesConnections(status.message())
                       ? absl::StrCat(status.ToString(), "; ", kTlsHint)
                       : status.ToString()},
         {"retry", absl::FormatDuration(pause)}});
    return SleepUnlessDraining(pause);
  }
  absl::MutexLock lock(&mutex_);
  refusal_.Update(Annotate(status, "the server refuses this worker"));
  return false;
}

bool Agent::TakeOne(absl::Duration wait, Slot& slot) {
  const absl::StatusOr<v1::AcquireLeaseResponse> grant = client_.Acquire(options_.info, wait);
  if (!grant.ok()) return AfterRefusal(grant.status(), slot);
  slot.backoff.Reset();
  slot.name_patience.reset();
  if (grant->has_lease()) RunAttempt(*grant);
  return SleepUnlessDraining(absl::ZeroDuration());
}

void Agent::RunSlot() {
  Slot slot{Backoff(absl::Milliseconds(100), absl::Seconds(5), random_), std::nullopt};
  // The first call does not wait: it shows at once whether the server takes us.
  bool more = TakeOne(absl::ZeroDuration(), slot);
  while (more) more = TakeOne(options_.acquire_wait, slot);
  absl::MutexLock lock(&mutex_);
  --running_slots_;
}

}  // namespace latentforge::agent
