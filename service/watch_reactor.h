// One WatchJob call.
#pragma once

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/support/server_callback.h"
#include "latentforge/v1/job_service.pb.h"
#include "service/rpc_call.h"
#include "service/watch_registry.h"
#include "service/watch_session.h"

namespace latentforge::service {

// What watches share. Borrows.
struct WatchParts {
  Store& store;
  WatchHub& hub;
  WatchRegistry& registry;
  absl::Duration bookmark_interval;
};

// Sends what its session gives, one write at a time. gRPC, hub and registry only
// wake it; everything else happens in Pump, which runs on one thread of the pool
// at a time and is the only one to Finish. Nothing wakes it after that, so gRPC's
// OnDone is the last call and deletes it. Borrows the parts.
class WatchReactor final : public grpc::ServerWriteReactor<v1::WatchJobResponse>,
                           public WatchRegistry::Watcher {
 public:
  // Returns the reactor to hand to gRPC; it owns itself.
  static WatchReactor* Start(const WatchParts& watch, const RpcParts& rpc,
                             const grpc::ServerContextBase& context,
                             const v1::WatchJobRequest& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void OnTick() override { Wake(); }
  void OnDrain() override;

 private:
  WatchReactor(const WatchParts& watch, const RpcParts& rpc, const grpc::ServerContextBase& context,
               const v1::WatchJobRequest& request);

  void Wake();
  void Pump();
  // Starts a write, or returns how the call ends, or neither.
  std::optional<absl::Status> Step();
  absl::Status CheckAdmitted() const;
  absl::Status StartSession();
  void Write(v1::WatchJobResponse message);

  const WatchParts watch_;
  const RpcParts rpc_;
  const v1::WatchJobRequest request_;
  const RpcCall call_;

  absl::Mutex mutex_;
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;   // Pump has something to look at
  bool running_ ABSL_GUARDED_BY(mutex_) = false;  // Pump is submitted or runs
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was, or is just being, called

  // Of Pump alone.
  bool registered_ = false;
  absl::Duration last_write_;
  v1::WatchJobResponse message_;  // being written
  absl::Status result_;
  std::unique_ptr<WatchSession> session_;
};

}  // namespace latentforge::service
