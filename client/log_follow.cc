#include "client/log_follow.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/client_context.h"

namespace latentforge::client {
namespace {

constexpr absl::Duration kAskInterval = absl::Milliseconds(100);

// Cancels the call that runs when the user interrupts.
class Interrupter {
 public:
  explicit Interrupter(std::function<bool()> interrupted)
      : interrupted_(std::move(interrupted)), thread_([this] { Run(); }) {}
  ~Interrupter() {
    {
      absl::MutexLock lock(&mutex_);
      stop_ = true;
    }
    thread_.join();
  }

  // nullptr: none. False when the user has interrupted already.
  bool Watch(grpc::ClientContext* context) {
    absl::MutexLock lock(&mutex_);
    context_ = context;
    return !fired_;
  }

 private:
  void Run() {
    absl::MutexLock lock(&mutex_);
    while (!mutex_.AwaitWithTimeout(absl::Condition(&stop_), kAskInterval)) {
      fired_ = fired_ || (interrupted_ && interrupted_());
      if (fired_ && context_ != nullptr) context_->TryCancel();
    }
  }

  const std::function<bool()> interrupted_;
  absl::Mutex mutex_;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool fired_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

// The request for what follows this entry.
void GoOnBehind(const v1::LogEntry& entry, v1::ReadLogsRequest& request) {
  request.clear_tail();
  request.set_from_sequence(entry.sequence());
  if (!absl::StrContains(request.name(), "/attempts/")) request.set_from_attempt(entry.attempt());
}

}  // namespace

absl::Status FollowLogs(ConversionClient& client, Clock& clock, v1::ReadLogsRequest request,
                        const LogFollowOptions& options,
                        absl::FunctionRef<absl::Status(const v1::ReadLogsResponse&)> receive) {
  Interrupter interrupter(options.interrupted);
  absl::Duration backoff = options.stream.first_backoff;
  absl::Duration last_heard = clock.Monotonic();
  bool ever_heard = false;
  while (true) {
    grpc::ClientContext context;
    if (!interrupter.Watch(&context)) return absl::CancelledError("interrupted");
    bool received = false;
    absl::Status failed;
    const absl::Status status = client.ReadLogsOnce(
        request, ever_heard ? options.stream.renewal : options.stream.first_patience, &context,
        [&](const v1::ReadLogsResponse& message) {
          received = true;
          if (message.entries().empty()) return true;
          failed = receive(message);
          GoOnBehind(*message.entries().rbegin(), request);
          return failed.ok();
        });
    if (!interrupter.Watch(nullptr)) return absl::CancelledError("interrupted");
    if (!failed.ok() || status.ok()) return failed;
    if (received) {
      ever_heard = true;
      last_heard = clock.Monotonic();
      backoff = options.stream.first_backoff;
    }
    const absl::Duration patience =
        ever_heard ? options.stream.patience : options.stream.first_patience;
    if (!MayResume(status, received) || clock.Monotonic() - last_heard >= patience) return status;
    if (!absl::IsDeadlineExceeded(status) && options.on_lost) options.on_lost(status);
    clock.SleepFor(backoff);
    backoff = std::min(backoff * 2, options.stream.max_backoff);
  }
}

}  // namespace latentforge::client
