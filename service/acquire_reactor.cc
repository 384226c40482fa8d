#include "service/acquire_reactor.h"

#include <memory>
#include <utility>

#include "base/log.h"

namespace latentforge::service {

AcquireReactor* AcquireReactor::Start(Scheduler& scheduler, const RpcParts& rpc,
                                      const v1::AcquireLeaseRequest& request,
                                      v1::AcquireLeaseResponse& response) {
  std::unique_ptr<AcquireReactor> owned(new AcquireReactor(scheduler, rpc, response));
  // gRPC calls OnCancel and OnDone only after this function has returned, also
  // when Answer comes first.
  AcquireReactor* const reactor = owned.release();
  reactor->ticket_ =
      scheduler.Acquire(request, [reactor](auto answer) { reactor->Answer(std::move(answer)); });
  return reactor;
}

AcquireReactor::AcquireReactor(Scheduler& scheduler, const RpcParts& rpc,
                               v1::AcquireLeaseResponse& response)
    : scheduler_(scheduler),
      timer_(rpc, {"latentforge.v1.WorkerService", "AcquireLease"}),
      response_(response) {}

void AcquireReactor::OnCancel() {
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }
  if (scheduler_.Abandon(ticket_)) End(absl::CancelledError("the worker went away"));
}

void AcquireReactor::OnDone() { std::unique_ptr<AcquireReactor> self(this); }

void AcquireReactor::Answer(absl::StatusOr<v1::AcquireLeaseResponse> answer) {
  bool cancelled = false;
  {
    absl::MutexLock lock(&mutex_);
    cancelled = cancelled_;
  }
  if (cancelled && answer.ok() && answer->has_lease()) {
    // Nobody will run it: give it back rather than wait for the lease to end.
    v1::CompleteAttemptRequest release;
    *release.mutable_lease() = answer->lease();
    release.mutable_released();
    const absl::Status released = scheduler_.Complete(release).status();
    if (!released.ok())
      Log(Severity::kWarning, "a lease that nobody took stays until it ends",
          {{"job", answer->lease().job()}, {"error", released.ToString()}});
  }
  if (answer.ok()) response_ = *std::move(answer);
  End(answer.status());
}

void AcquireReactor::End(const absl::Status& status) {
  timer_.Handled(status);
  Finish(ToGrpcStatus(status));
}

}  // namespace latentforge::service
