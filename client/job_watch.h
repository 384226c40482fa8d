// Follows one job in a thread of its own, across lost connections.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "client/conversion_client.h"
#include "grpcpp/client_context.h"
#include "latentforge/v1/job_service.pb.h"

namespace latentforge::client {

// What a watcher is told.
struct WatchUpdate {
  enum class Kind { kMessage, kReconnecting, kRestarted, kEnded };
  Kind kind = Kind::kMessage;
  v1::WatchJobResponse message;  // kMessage
  absl::Status status;           // kReconnecting, kRestarted: why; kEnded: the error, or OK
};

struct WatchOptions {
  // Gives up with the last error when the server has never answered for this long:
  // a wrong address, or no server.
  absl::Duration first_patience = absl::Seconds(10);
  // The same once it has answered: it is away for a while.
  absl::Duration patience = absl::Minutes(5);
  // A watch is opened anew after this long, so that a dead connection is noticed.
  absl::Duration renewal = absl::Minutes(5);
  absl::Duration first_backoff = absl::Milliseconds(200);
  absl::Duration max_backoff = absl::Seconds(5);
};

// A stream that ended like this may be opened again: a lost connection, a renewed deadline or a
// leaving server; all else is final. So is the end of a token, unless the stream was open with it
// until now (`received`): its file, which each call reads again, may hold the next one.
bool MayResume(const absl::Status& status, bool received);

// Opens WatchJob, resumes it behind the last event received whenever the stream
// breaks, starts it again from a new snapshot when that event is too old for the server, and ends
// after a terminal state or a lasting error. Safe for concurrent use. Borrows client and clock; the
// destructor stops and joins the thread.
class JobWatch {
 public:
  // `after`: only events behind this sequence; unset: only events behind the
  // snapshot.
  JobWatch(ConversionClient& client, Clock& clock, std::string job, std::optional<int64_t> after,
           WatchOptions options = {});
  ~JobWatch();

  JobWatch(const JobWatch&) = delete;
  JobWatch& operator=(const JobWatch&) = delete;

  // The next update, or none within `wait`. After kEnded none follows.
  std::optional<WatchUpdate> Next(absl::Duration wait);

 private:
  void Run();
  absl::Status RunOnce(absl::Duration timeout, bool* received);
  void Push(WatchUpdate update);
  bool Stopped();

  ConversionClient& client_;
  Clock& clock_;
  const std::string job_;
  const WatchOptions options_;
  std::optional<int64_t> after_;  // only the thread touches it
  bool job_ended_ = false;        // only the thread touches it

  absl::Mutex mutex_;
  std::vector<WatchUpdate> updates_ ABSL_GUARDED_BY(mutex_);
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace latentforge::client
