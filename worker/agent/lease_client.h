// The worker's calls to the server, typed, with deadlines.
#pragma once

#include <memory>
#include <optional>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "grpcpp/grpcpp.h"
#include "latentforge/v1/worker_service.grpc.pb.h"
#include "proto/channel_security.h"

namespace latentforge::agent {

// True when the lease is no longer the job's, or not this worker's, or the job no longer exists:
// the attempt must stop and nothing of it counts.
bool IsLeaseLost(const absl::Status& status);

// True when the same call may succeed later without any change.
bool IsTransient(const absl::Status& status);

// How long until this worker's name is free; nullopt when nobody else has it.
std::optional<absl::Duration> NameTakenFor(const absl::Status& status);

// A channel that finds a restarted server within two seconds and notices a dead
// connection during a call. `address` is host:port or unix:/path. The errors of
// MakeChannelCredentials.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeServerChannel(
    const std::string& address, const ChannelSecurity& security = {});

// Safe for concurrent use. Borrows nothing but the clock. Every call ends by its
// deadline; a status keeps the server's code, and LEASE_LOST is recognised by
// IsLeaseLost.
class LeaseClient {
 public:
  LeaseClient(std::shared_ptr<grpc::Channel> channel, absl::Duration rpc_timeout,
              const Clock& clock);

  // Waits up to `wait` for a job; the response has no lease when none came.
  absl::StatusOr<v1::AcquireLeaseResponse> Acquire(const v1::WorkerInfo& worker,
                                                   absl::Duration wait);
  // `timeout` shortens the client's own.
  absl::StatusOr<v1::HeartbeatResponse> Heartbeat(const v1::HeartbeatRequest& request,
                                                  absl::Duration timeout);
  absl::StatusOr<v1::ReportEventsResponse> ReportEvents(const v1::ReportEventsRequest& request);
  // `timeout` shortens the client's own.
  absl::StatusOr<v1::AppendLogsResponse> AppendLogs(const v1::AppendLogsRequest& request,
                                                    absl::Duration timeout);
  absl::Status Complete(const v1::CompleteAttemptRequest& request);

  // Ends Acquire calls, running and future, with CANCELLED.
  void StopAcquiring();
  // Ends all calls, running and future, with CANCELLED.
  void StopAll();

  // For how long calls have gone unanswered; zero while the last call was answered
  // or the first one still runs.
  absl::Duration UnreachableFor() const;
  // True once a call has succeeded.
  bool EverReached() const;

 private:
  struct Call;
  absl::Status Finish(const grpc::Status& status);

  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  const absl::Duration rpc_timeout_;
  const Clock& clock_;
  mutable absl::Mutex mutex_;
  std::optional<absl::Duration> unreachable_since_ ABSL_GUARDED_BY(mutex_);
  bool reached_ ABSL_GUARDED_BY(mutex_) = false;
  bool acquire_stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool all_stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> acquiring_ ABSL_GUARDED_BY(mutex_);
  std::set<grpc::ClientContext*> others_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::agent
