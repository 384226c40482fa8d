// Reports the events of one attempt to the server, in order, in batches.
#pragma once

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "latentforge/v1/worker_service.pb.h"
#include "worker/agent/attempt_control.h"
#include "worker/agent/backoff.h"
#include "worker/agent/event_buffer.h"
#include "worker/agent/lease_client.h"

namespace latentforge::agent {

// Runs a thread of its own, so that an unreachable server never stops the
// reading of the process's output: events wait in a bounded buffer. Passes what the
// server wants and a lost lease on to the control. Borrows client and control.
// Push and Close belong to one thread.
class EventRelay {
 public:
  EventRelay(LeaseClient& client, Random random, AttemptControl& control, v1::Lease lease,
             EventBufferLimits limits = {});
  ~EventRelay();

  // ResourceExhausted when the buffer is full of events that may not be dropped.
  absl::Status Push(v1::AttemptEvent event);

  // Waits until everything pushed was recorded or nothing may be reported any more.
  void Close();

 private:
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closing_ || !buffer_.empty(); }
  void Loop();
  // True when the batch is done with, recorded or refused.
  bool Report(const v1::ReportEventsRequest& request);

  LeaseClient& client_;
  AttemptControl& control_;
  const Random random_;
  const v1::Lease lease_;
  absl::Mutex mutex_;
  EventBuffer buffer_ ABSL_GUARDED_BY(mutex_);
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace latentforge::agent
