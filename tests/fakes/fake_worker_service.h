// The server's side of WorkerService, in memory, for tests of the worker.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "latentforge/v1/worker_service.grpc.pb.h"

namespace latentforge {

// A status with a google.rpc.ErrorInfo, as the server makes them, and with a
// RetryInfo unless the delay is zero.
grpc::Status ErrorWithReason(grpc::StatusCode code, const std::string& reason,
                             const std::string& message,
                             absl::Duration retry_delay = absl::ZeroDuration());

// Hands out leases with rising epochs, checks them on every call, ignores repeated
// sequences, and can be told to be away or to fence. Leases never expire by
// themselves. Safe for concurrent use.
class FakeWorkerService final : public v1::WorkerService::Service {
 public:
  struct Attempt {
    v1::Lease lease;
    std::vector<v1::AttemptEvent> events;
    std::vector<v1::AttemptLogLine> lines;
    int log_calls = 0;
    std::optional<v1::CompleteAttemptRequest> outcome;
    int heartbeats = 0;
    v1::AttemptCommand obeying = v1::ATTEMPT_COMMAND_UNSPECIFIED;  // of the last heartbeat
  };

  // A job to lease, as job "jobs/NAME".
  void Submit(const std::string& name, const v1::JobSpec& spec);
  // Every call fails with this until it is OK again.
  void FailWith(const grpc::Status& status);
  // AppendLogs fails with this, before anything else is looked at.
  void FailLogsWith(const grpc::Status& status);
  // Gives the job of every running attempt a new epoch.
  void FenceAll();
  // Every running attempt is told this from now on.
  void CommandAll(v1::AttemptCommand command);
  void SetLease(absl::Duration lease, absl::Duration heartbeat);
  // Of the leases that are granted from now on.
  void SetAllowedRoots(const std::vector<std::string>& roots);

  // Waits up to 20 s until `done` holds for what was recorded.
  bool AwaitAttempts(const std::function<bool(const std::vector<Attempt>&)>& done);
  std::vector<Attempt> attempts() const;
  v1::WorkerInfo last_worker() const;
  int fenced_calls() const;

  grpc::Status AcquireLease(grpc::ServerContext* context, const v1::AcquireLeaseRequest* request,
                            v1::AcquireLeaseResponse* response) override;
  grpc::Status Heartbeat(grpc::ServerContext* context, const v1::HeartbeatRequest* request,
                         v1::HeartbeatResponse* response) override;
  grpc::Status ReportEvents(grpc::ServerContext* context, const v1::ReportEventsRequest* request,
                            v1::ReportEventsResponse* response) override;
  grpc::Status AppendLogs(grpc::ServerContext* context, const v1::AppendLogsRequest* request,
                          v1::AppendLogsResponse* response) override;
  grpc::Status CompleteAttempt(grpc::ServerContext* context,
                               const v1::CompleteAttemptRequest* request,
                               v1::CompleteAttemptResponse* response) override;

 private:
  struct Waiting {
    std::string job;
    v1::JobSpec spec;
  };
  // The attempt with this lease, or nullptr with `status` set.
  Attempt* Find(const v1::Lease& lease, grpc::Status* status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::deque<Waiting> queue_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, v1::Lease> current_ ABSL_GUARDED_BY(mutex_);
  std::vector<Attempt> attempts_ ABSL_GUARDED_BY(mutex_);
  grpc::Status failure_ ABSL_GUARDED_BY(mutex_);
  grpc::Status log_failure_ ABSL_GUARDED_BY(mutex_);
  v1::AttemptCommand command_ ABSL_GUARDED_BY(mutex_) = v1::ATTEMPT_COMMAND_CONTINUE;
  absl::Duration lease_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(30);
  absl::Duration heartbeat_ ABSL_GUARDED_BY(mutex_) = absl::Milliseconds(50);
  std::vector<std::string> roots_ ABSL_GUARDED_BY(mutex_);
  v1::WorkerInfo worker_ ABSL_GUARDED_BY(mutex_);
  int fenced_ ABSL_GUARDED_BY(mutex_) = 0;
};

// A server on a Unix socket in `folder`, which can be stopped and started again.
class FakeWorkerServer {
 public:
  explicit FakeWorkerServer(const std::string& folder);
  ~FakeWorkerServer();

  void Start();
  void Stop();
  const std::string& address() const { return address_; }
  FakeWorkerService& service() { return service_; }

 private:
  const std::string address_;
  FakeWorkerService service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace latentforge
