#include "service/stream_reactor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/grpc_status.h"

namespace latentforge::service {
namespace {

const char* TypeOf(const v1::WatchJobResponse& message) {
  switch (message.message_case()) {
    case v1::WatchJobResponse::kSnapshot:
      return "snapshot";
    case v1::WatchJobResponse::kEvent:
      return "event";
    case v1::WatchJobResponse::kBookmark:
    case v1::WatchJobResponse::MESSAGE_NOT_SET:
      break;
  }
  return "bookmark";
}

absl::Status SlowConsumerError(absl::Duration timeout) {
  return WithRetryDelay(
      MakeError(absl::StatusCode::kResourceExhausted, "SLOW_CONSUMER",
                absl::StrCat("nothing of the stream was read for ", absl::FormatDuration(timeout),
                             "; open it again from the last sequence seen")),
      absl::Seconds(1));
}

const char* TypeOf(const v1::ReadLogsResponse& message) {
  return message.entries().empty() ? "bookmark" : "lines";
}

}  // namespace

template <typename Response>
StreamReactor<Response>* StreamReactor<Response>::Start(const StreamParts& stream,
                                                        const RpcParts& rpc, RpcMethod method,
                                                        const grpc::ServerContextBase& context,
                                                        bool resumed, Open open) {
  std::unique_ptr<StreamReactor> reactor(
      new StreamReactor(stream, rpc, method, context, std::move(open)));
  rpc.observer.WatchOpened(resumed);
  reactor->Wake();
  return reactor.release();
}

template <typename Response>
StreamReactor<Response>::StreamReactor(const StreamParts& stream, const RpcParts& rpc,
                                       RpcMethod method, const grpc::ServerContextBase& context,
                                       Open open)
    : stream_(stream),
      rpc_(rpc),
      open_(std::move(open)),
      context_(context),
      call_(rpc, method, context),
      last_write_(rpc.clock.Monotonic()) {}

template <typename Response>
void StreamReactor<Response>::WakeLocked() {
  if (running_) return;
  running_ = true;
  rpc_.pool.Submit([this] { Pump(); });
}

template <typename Response>
void StreamReactor<Response>::Wake() {
  absl::MutexLock lock(&mutex_);
  if (over_) return;
  wanted_ = true;
  WakeLocked();
}

template <typename Response>
void StreamReactor<Response>::Notify() {
  absl::MutexLock lock(&mutex_);
  if (over_) return;
  wanted_ = true;
  if (!writing_) WakeLocked();  // else OnWriteDone does
}

template <typename Response>
void StreamReactor<Response>::OnTick() {
  bool reset = false;
  {
    absl::MutexLock lock(&mutex_);
    reset = over_ && rpc_.clock.Monotonic() >= reset_time_;
    if (reset) reset_time_ = absl::InfiniteDuration();
  }
  // The status waits behind what is not being read. The registry's lock keeps OnDone, and so the
  // end of the context, away: gRPC calls that on a thread of its own.
  if (reset) context_.TryCancel();
  Wake();
}

template <typename Response>
void StreamReactor<Response>::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;
  }
  Wake();
}

template <typename Response>
void StreamReactor<Response>::OnCancel() {
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }
  Wake();
}

template <typename Response>
void StreamReactor<Response>::OnDrain() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  Wake();
}

template <typename Response>
void StreamReactor<Response>::OnDone() {
  std::unique_ptr<StreamReactor> self(this);
  if (registered_) stream_.registry.Remove(this);
  call_.Handled(result_);
  rpc_.observer.WatchClosed(result_.ok() ? "finished" : ReasonOf(result_));
}

template <typename Response>
void StreamReactor<Response>::Pump() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (!wanted_) {
        running_ = false;
        return;
      }
      wanted_ = false;
    }
    std::optional<absl::Status> end = Step();
    if (!end.has_value()) continue;
    result_ = *std::move(end);
    {
      absl::MutexLock lock(&mutex_);
      over_ = true;
      reset_time_ = rpc_.clock.Monotonic() + stream_.stall_timeout;
    }
    // Last: OnDone may delete this before Finish returns.
    this->Finish(ToGrpcStatus(result_));
    return;
  }
}

template <typename Response>
std::optional<absl::Status> StreamReactor<Response>::Step() {
  {
    absl::MutexLock lock(&mutex_);
    // A stuck write does not stop these two: gRPC drops it.
    if (cancelled_) return absl::CancelledError("the client went away");
    if (draining_ || stream_.registry.draining()) {
      return WithRetryDelay(MakeError(absl::StatusCode::kUnavailable, kDraining,
                                      "the server is shutting down; watch again from the last "
                                      "sequence seen"),
                            absl::Seconds(1));
    }
  }
  if (absl::Status admitted = CheckAdmitted(); !admitted.ok()) return admitted;
  {
    absl::MutexLock lock(&mutex_);
    if (writing_) {
      if (rpc_.clock.Monotonic() - last_write_ < stream_.stall_timeout) return std::nullopt;
      return SlowConsumerError(stream_.stall_timeout);
    }
  }
  if (source_ == nullptr) {
    if (absl::Status started = OpenSource(); !started.ok()) return started;
  }
  absl::StatusOr<std::optional<Response>> next = source_->Next();
  if (!next.ok()) return next.status();
  if (next->has_value()) {
    Write(**std::move(next));
  } else if (source_->finished()) {
    return absl::OkStatus();
  } else if (rpc_.clock.Monotonic() - last_write_ >= stream_.bookmark_interval) {
    Write(source_->MakeBookmark(rpc_.clock.Now()));
  }
  return std::nullopt;
}

// At every step, and so at every tick of the registry: the caller's token may expire.
template <typename Response>
absl::Status StreamReactor<Response>::CheckAdmitted() const {
  if (!call_.caller().ok()) return call_.caller().status();
  return call_.CheckStillValid();
}

template <typename Response>
absl::Status StreamReactor<Response>::OpenSource() {
  LF_RETURN_IF_ERROR(stream_.registry.Add(this, call_.caller()->identity.tenant));
  registered_ = true;
  LF_ASSIGN_OR_RETURN(source_, open_(call_.caller()->identity, [this] { Notify(); }));
  return absl::OkStatus();
}

template <typename Response>
void StreamReactor<Response>::Write(Response message) {
  message_ = std::move(message);
  last_write_ = rpc_.clock.Monotonic();
  {
    absl::MutexLock lock(&mutex_);
    writing_ = true;
  }
  rpc_.observer.WatchSent(TypeOf(message_));
  this->StartWrite(&message_);
}

template class StreamReactor<v1::ReadLogsResponse>;
template class StreamReactor<v1::WatchJobResponse>;

}  // namespace latentforge::service
