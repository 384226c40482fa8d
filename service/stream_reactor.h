// One streaming call: WatchJob, ReadLogs.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/support/server_callback.h"
#include "latentforge/v1/job_service.pb.h"
#include "service/rpc_call.h"
#include "service/stream_source.h"
#include "service/watch_registry.h"

namespace latentforge::service {

// What streams share. Borrows.
struct StreamParts {
  WatchRegistry& registry;
  absl::Duration bookmark_interval;
  // A write that takes longer ends the call: the caller does not read.
  absl::Duration stall_timeout;
};

// Sends what its source gives, one write at a time; while one is under way the source is not
// asked, so that a caller who does not read costs one message and no work. gRPC, source and
// registry only wake it; everything else happens in Pump, which runs on one thread of the pool at a
// time and is the only one to Finish. Nothing wakes it after that, so gRPC's OnDone is the last
// call and deletes it. Borrows the parts.
template <typename Response>
class StreamReactor final : public grpc::ServerWriteReactor<Response>,
                            public WatchRegistry::Watcher {
 public:
  // Makes the source for a caller who was admitted. `notify` may be called by any thread,
  // until the source is destroyed, whenever Next may have more.
  using Open = std::function<absl::StatusOr<std::unique_ptr<StreamSource<Response>>>(
      const Identity& caller, std::function<void()> notify)>;

  // Returns the reactor to hand to gRPC; it owns itself. `resumed`: the caller has seen a part
  // of the stream before.
  static StreamReactor* Start(const StreamParts& stream, const RpcParts& rpc, RpcMethod method,
                              const grpc::ServerContextBase& context, bool resumed, Open open);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void OnTick() override;
  void OnDrain() override;

 private:
  StreamReactor(const StreamParts& stream, const RpcParts& rpc, RpcMethod method,
                const grpc::ServerContextBase& context, Open open);

  // Something happened that does not wait for a write.
  void Wake();
  // The source may have more, which does.
  void Notify();
  void WakeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Pump();
  // Starts a write, or returns how the call ends, or neither.
  std::optional<absl::Status> Step();
  absl::Status CheckAdmitted() const;
  absl::Status OpenSource();
  void Write(Response message);

  const StreamParts stream_;
  const RpcParts rpc_;
  const Open open_;
  const grpc::ServerContextBase& context_;  // until OnDone
  const RpcCall call_;

  absl::Mutex mutex_;
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;   // Pump has something to look at
  bool running_ ABSL_GUARDED_BY(mutex_) = false;  // Pump is submitted or runs
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was, or is just being, called
  // When what was written before the end must have been read.
  absl::Duration reset_time_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();

  // Of Pump alone.
  bool registered_ = false;
  absl::Duration last_write_;
  Response message_;  // being written
  absl::Status result_;
  std::unique_ptr<StreamSource<Response>> source_;
};

extern template class StreamReactor<v1::ReadLogsResponse>;
extern template class StreamReactor<v1::WatchJobResponse>;

}  // namespace latentforge::service
