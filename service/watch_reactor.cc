#include "service/watch_reactor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/grpc_status.h"

namespace latentforge::service {
namespace {

constexpr RpcMethod kMethod = {"latentforge.v1.JobService", "WatchJob"};

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

}  // namespace

WatchReactor* WatchReactor::Start(const WatchParts& watch, const RpcParts& rpc,
                                  const grpc::ServerContextBase& context,
                                  const v1::WatchJobRequest& request) {
  std::unique_ptr<WatchReactor> reactor(new WatchReactor(watch, rpc, context, request));
  reactor->Wake();
  return reactor.release();
}

WatchReactor::WatchReactor(const WatchParts& watch, const RpcParts& rpc,
                           const grpc::ServerContextBase& context,
                           const v1::WatchJobRequest& request)
    : watch_(watch),
      rpc_(rpc),
      request_(request),
      call_(rpc, kMethod, context),
      last_write_(rpc.clock.Monotonic()) {
  rpc_.observer.WatchOpened(request.has_from_sequence());
}

void WatchReactor::Wake() {
  absl::MutexLock lock(&mutex_);
  if (over_) return;
  wanted_ = true;
  if (running_) return;
  running_ = true;
  rpc_.pool.Submit([this] { Pump(); });
}

void WatchReactor::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;
  }
  Wake();
}

void WatchReactor::OnCancel() {
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }
  Wake();
}

void WatchReactor::OnDrain() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  Wake();
}

void WatchReactor::OnDone() {
  std::unique_ptr<WatchReactor> self(this);
  if (registered_) watch_.registry.Remove(this);
  call_.Handled(result_);
  rpc_.observer.WatchClosed(result_.ok() ? "finished" : ReasonOf(result_));
}

void WatchReactor::Pump() {
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
    }
    // Last: OnDone may delete this before Finish returns.
    Finish(ToGrpcStatus(result_));
    return;
  }
}

std::optional<absl::Status> WatchReactor::Step() {
  {
    absl::MutexLock lock(&mutex_);
    // A stuck write does not stop these two: gRPC drops it.
    if (cancelled_) return absl::CancelledError("the client went away");
    if (draining_ || watch_.registry.draining()) {
      return WithRetryDelay(MakeError(absl::StatusCode::kUnavailable, kDraining,
                                      "the server is shutting down; watch again from the last "
                                      "sequence seen"),
                            absl::Seconds(1));
    }
  }
  if (absl::Status admitted = CheckAdmitted(); !admitted.ok()) return admitted;
  {
    absl::MutexLock lock(&mutex_);
    if (writing_) return std::nullopt;
  }
  if (session_ == nullptr) {
    if (absl::Status started = StartSession(); !started.ok()) return started;
  }
  absl::StatusOr<std::optional<v1::WatchJobResponse>> next = session_->Next();
  if (!next.ok()) return next.status();
  if (next->has_value()) {
    Write(**std::move(next));
  } else if (session_->finished()) {
    return absl::OkStatus();
  } else if (rpc_.clock.Monotonic() - last_write_ >= watch_.bookmark_interval) {
    Write(session_->MakeBookmark(rpc_.clock.Now()));
  }
  return std::nullopt;
}

// At every step, and so at every tick of the registry: the caller's token may expire.
absl::Status WatchReactor::CheckAdmitted() const {
  if (!call_.caller().ok()) return call_.caller().status();
  return call_.CheckStillValid();
}

absl::Status WatchReactor::StartSession() {
  registered_ = watch_.registry.Add(this);
  if (!registered_) {
    return WithRetryDelay(MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_WATCHES",
                                    "the server has as many open watches as it allows"),
                          absl::Seconds(10));
  }
  LF_ASSIGN_OR_RETURN(session_, WatchSession::Start(call_.caller()->identity, watch_.store,
                                                    watch_.hub, request_, [this] { Wake(); }));
  return absl::OkStatus();
}

void WatchReactor::Write(v1::WatchJobResponse message) {
  message_ = std::move(message);
  last_write_ = rpc_.clock.Monotonic();
  {
    absl::MutexLock lock(&mutex_);
    writing_ = true;
  }
  rpc_.observer.WatchSent(TypeOf(message_));
  StartWrite(&message_);
}

}  // namespace latentforge::service
