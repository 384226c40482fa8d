#include "service/acquire_reactor.h"

#include <memory>
#include <utility>

#include "base/log.h"
#include "service/grpc_status.h"

namespace latentforge::service {

AcquireReactor* AcquireReactor::Start(Scheduler& scheduler, const RpcParts& rpc,
                                      const grpc::ServerContextBase& context,
                                      const v1::AcquireLeaseRequest& request,
                                      v1::AcquireLeaseResponse& response) {
  std::unique_ptr<AcquireReactor> owned(new AcquireReactor(scheduler, rpc, context, response));
  // gRPC calls OnCancel and OnDone only after this function has returned, also
  // when Answer comes first.
  AcquireReactor* const reactor = owned.release();
  if (!reactor->call_.caller().ok()) {
    reactor->End(reactor->call_.caller().status());
    return reactor;
  }
  reactor->ticket_ =
      scheduler.Acquire(reactor->call_.caller()->identity, request,
                        [reactor](auto answer) { reactor->Answer(std::move(answer)); });
  return reactor;
}

AcquireReactor::AcquireReactor(Scheduler& scheduler, const RpcParts& rpc,
                               const grpc::ServerContextBase& context,
                               v1::AcquireLeaseResponse& response)
    : scheduler_(scheduler),
      call_(rpc, {"latentforge.v1.WorkerService", "AcquireLease"}, context),
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
    const absl::Status released = scheduler_.Complete(call_.caller()->identity, release).status();
    if (!released.ok())
      Log(Severity::kWarning, "a lease that nobody took stays until it ends",
          {{"job", answer->lease().job()}, {"error", released.ToString()}});
  }
  if (answer.ok()) response_ = *std::move(answer);
  End(answer.status());
}

void AcquireReactor::End(const absl::Status& status) {
  call_.Handled(status, response_.lease().job());
  Finish(ToGrpcStatus(status));
}

}  // namespace latentforge::service
