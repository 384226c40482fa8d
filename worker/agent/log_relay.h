// Sends the lines of one attempt's log to the server, about once a second.
#pragma once

#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "latentforge/v1/worker_service.pb.h"
#include "worker/agent/attempt_control.h"
#include "worker/agent/backoff.h"
#include "worker/agent/lease_client.h"
#include "worker/agent/log_buffer.h"

namespace latentforge::agent {

struct LogRelayOptions {
  absl::Duration interval = absl::Seconds(1);  // between calls, unless many lines wait
  absl::Duration call_timeout = absl::Seconds(1);
  LogBufferLimits buffer;
};

// Runs a thread of its own. Logs are worth less than the attempt: lines that the server cannot
// take wait in a bounded buffer, which drops the oldest, and nothing that happens here has an
// effect on anything else. Borrows client, clock and control. Push is safe for concurrent use.
class LogRelay {
 public:
  LogRelay(LeaseClient& client, const Clock& clock, Random random, const AttemptControl& control,
           v1::Lease lease, LogRelayOptions options = {});
  // Finish, and waits for it: about a second at most, unless the server is away. Then the end of
  // the attempt cannot be reported either, and this waits like that.
  ~LogRelay();

  // `text` is a line without its end; `truncated`: it was longer.
  void Push(absl::string_view text, bool truncated);

  // No more lines will come: what is there is sent at once. A busy server is asked a few times,
  // one that is away until the control says that nothing may be reported. Does not wait.
  void Finish();

 private:
  enum class Answer { kTaken, kBusy, kAway, kNever };

  void Loop();
  // Waits until there is something to send, and it is time. False at the end.
  bool AwaitWork(absl::Duration not_before);
  Answer Send(const v1::AppendLogsRequest& request);
  // Waits before the next try. False: there is none.
  bool Pause(Answer answer, Backoff& backoff);
  bool Urgent() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return finishing_ || buffer_.HasBatch();
  }

  LeaseClient& client_;
  const Clock& clock_;
  const Random random_;
  const AttemptControl& control_;
  const v1::Lease lease_;
  const LogRelayOptions options_;
  absl::Mutex mutex_;
  LogBuffer buffer_ ABSL_GUARDED_BY(mutex_);
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;
  int last_tries_ = 0;  // of the thread, after Finish, at a busy server
  std::thread thread_;  // last: it uses the others
};

}  // namespace latentforge::agent
