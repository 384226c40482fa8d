// One AcquireLease call: waits without a thread.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "latentforge/v1/worker_service.pb.h"
#include "service/rpc_call.h"
#include "service/scheduler.h"

namespace latentforge::service {

// Finished once, by the scheduler's answer or by the caller's leaving, whichever
// took the waiter out of the scheduler; deletes itself in OnDone. Borrows.
class AcquireReactor final : public grpc::ServerUnaryReactor {
 public:
  // Returns the reactor to hand to gRPC; it owns itself. `response` lives until
  // OnDone, as gRPC promises.
  static AcquireReactor* Start(Scheduler& scheduler, const RpcParts& rpc,
                               const grpc::ServerContextBase& context,
                               const v1::AcquireLeaseRequest& request,
                               v1::AcquireLeaseResponse& response);

  void OnCancel() override;
  void OnDone() override;

 private:
  AcquireReactor(Scheduler& scheduler, const RpcParts& rpc, const grpc::ServerContextBase& context,
                 v1::AcquireLeaseResponse& response);

  void Answer(absl::StatusOr<v1::AcquireLeaseResponse> answer);
  void End(const absl::Status& status);

  Scheduler& scheduler_;
  const RpcCall call_;
  v1::AcquireLeaseResponse& response_;
  int64_t ticket_ = 0;  // set before gRPC knows the reactor; 0: nothing waits
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace latentforge::service
