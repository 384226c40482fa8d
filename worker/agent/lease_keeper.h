// Keeps one lease alive with heartbeats and hears what the server wants.
#pragma once

#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/timed_flag.h"
#include "latentforge/v1/worker_service.pb.h"
#include "worker/agent/attempt_control.h"
#include "worker/agent/backoff.h"
#include "worker/agent/lease_client.h"
#include "worker/agent/lease_timer.h"

namespace latentforge::agent {

struct LeaseTerms {
  v1::Lease lease;
  std::string worker;
  absl::Duration received;  // monotonic time at which the lease came
  absl::Duration duration;  // of the lease
  absl::Duration interval;  // between heartbeats
};

// Runs a thread of its own from construction to destruction, so that neither a
// slow report nor a busy process delays a heartbeat. Tells the control: kPause,
// kCancel and kLeaseLost when the server says so, kLeaseDeadline when no heartbeat got
// through in time. Tells the server of a pause that is under way. Borrows client,
// clock and control.
class LeaseKeeper {
 public:
  LeaseKeeper(LeaseClient& client, const Clock& clock, Random random, AttemptControl& control,
              LeaseTerms terms);
  ~LeaseKeeper();

  // The process has ended: the deadline no longer matters, only the server's word.
  void ProcessEnded();

 private:
  void Loop();
  // One heartbeat. False when the lease is lost.
  bool Beat(Backoff& backoff);
  bool WaitForNextBeat();
  // The deadline has passed.
  void HoldToDeadline();

  LeaseClient& client_;
  const Clock& clock_;
  const Random random_;
  AttemptControl& control_;
  const LeaseTerms terms_;
  LeaseTimer timer_;          // of the thread
  absl::Duration next_beat_;  // of the thread
  absl::Mutex mutex_;
  bool process_ended_ ABSL_GUARDED_BY(mutex_) = false;
  TimedFlag stopping_;
  std::thread thread_;
};

}  // namespace latentforge::agent
