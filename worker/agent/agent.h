// The worker: slots that take leases and run them, one after another.
#pragma once

#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/timed_flag.h"
#include "latentforge/v1/worker_service.pb.h"
#include "worker/agent/attempt_control.h"
#include "worker/agent/attempt_runner.h"
#include "worker/agent/backoff.h"
#include "worker/agent/lease_client.h"

namespace latentforge::agent {

struct AgentOptions {
  v1::WorkerInfo info;  // its slots are the number of threads
  absl::Duration acquire_wait = absl::Seconds(10);
};

// Each slot is one thread, which starts compute processes and outlives them: they
// die with the thread that started them. Safe for concurrent use. Borrows
// everything.
class Agent {
 public:
  Agent(LeaseClient& client, AttemptRunner& runner, Random random, AgentOptions options);
  // Waits for the slots; call Drain before.
  ~Agent();

  // Takes no more leases and gives back those that are held, once their
  // processes have stopped.
  void Drain();

  // Ends every wait for the server. After Drain.
  void GiveUp();

  // True when every slot has ended, which it does after Drain.
  bool WaitUntilStopped(absl::Duration timeout);

  // Why the server will never give a lease to this worker; OK when it may.
  absl::Status refusal() const;

 private:
  void RunSlot();
  // What a slot remembers between tries.
  struct Slot {
    Backoff backoff;
    // While another process has our name: how long that may still last.
    std::optional<absl::Duration> name_patience;
  };
  // One try. False when the slot has to end.
  bool TakeOne(absl::Duration wait, Slot& slot);
  // The same after the server refused. False when the slot has to end.
  bool AfterRefusal(const absl::Status& status, Slot& slot);
  // True when it is worth asking again: the other process may be dead.
  bool AwaitName(const absl::Status& status, absl::Duration taken_for, Slot& slot);
  void RunAttempt(const v1::AcquireLeaseResponse& grant);
  bool SleepUnlessDraining(absl::Duration duration);
  bool Stopped() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return running_slots_ == 0; }

  LeaseClient& client_;
  AttemptRunner& runner_;
  const Random random_;
  const AgentOptions options_;
  mutable absl::Mutex mutex_;
  TimedFlag draining_;
  bool gave_up_ ABSL_GUARDED_BY(mutex_) = false;
  int running_slots_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  std::set<AttemptControl*> attempts_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> slots_;
};

}  // namespace latentforge::agent
