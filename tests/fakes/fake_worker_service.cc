#include "tests/fakes/fake_worker_service.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace latentforge {
namespace {

void Set(absl::Duration duration, google::protobuf::Duration* proto) {
  proto->set_seconds(absl::ToInt64Seconds(duration));
  proto->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration % absl::Seconds(1))));
}

absl::Duration Get(const google::protobuf::Duration& proto) {
  return absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
}

}  // namespace

grpc::Status ErrorWithReason(grpc::StatusCode code, const std::string& reason,
                             const std::string& message, absl::Duration retry_delay) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("latentforge");
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(info);
  if (retry_delay > absl::ZeroDuration()) {
    google::rpc::RetryInfo retry;
    Set(retry_delay, retry.mutable_retry_delay());
    details.add_details()->PackFrom(retry);
  }
  return grpc::Status(code, message, details.SerializeAsString());
}

void FakeWorkerService::Submit(const std::string& name, const v1::JobSpec& spec) {
  absl::MutexLock lock(&mutex_);
  queue_.push_back({absl::StrCat("jobs/", name), spec});
}

void FakeWorkerService::FailWith(const grpc::Status& status) {
  absl::MutexLock lock(&mutex_);
  failure_ = status;
}

void FakeWorkerService::FailLogsWith(const grpc::Status& status) {
  absl::MutexLock lock(&mutex_);
  log_failure_ = status;
}

void FakeWorkerService::FenceAll() {
  absl::MutexLock lock(&mutex_);
  for (auto& [job, lease] : current_) lease.set_lease_epoch(lease.lease_epoch() + 1);
}

void FakeWorkerService::CommandAll(v1::AttemptCommand command) {
  absl::MutexLock lock(&mutex_);
  command_ = command;
}

void FakeWorkerService::SetLease(absl::Duration lease, absl::Duration heartbeat) {
  absl::MutexLock lock(&mutex_);
  lease_ = lease;
  heartbeat_ = heartbeat;
}

void FakeWorkerService::SetAllowedRoots(const std::vector<std::string>& roots) {
  absl::MutexLock lock(&mutex_);
  roots_ = roots;
}

bool FakeWorkerService::AwaitAttempts(
    const std::function<bool(const std::vector<Attempt>&)>& done) {
  absl::MutexLock lock(&mutex_);
  const auto condition = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return done(attempts_); };
  return mutex_.AwaitWithTimeout(absl::Condition(&condition), absl::Seconds(20));
}

std::vector<FakeWorkerService::Attempt> FakeWorkerService::attempts() const {
  absl::MutexLock lock(&mutex_);
  return attempts_;
}

v1::WorkerInfo FakeWorkerService::last_worker() const {
  absl::MutexLock lock(&mutex_);
  return worker_;
}

int FakeWorkerService::fenced_calls() const {
  absl::MutexLock lock(&mutex_);
  return fenced_;
}

FakeWorkerService::Attempt* FakeWorkerService::Find(const v1::Lease& lease, grpc::Status* status) {
  *status = failure_;
  if (!failure_.ok()) return nullptr;
  const auto current = current_.find(lease.job());
  if (current != current_.end() && current->second.lease_epoch() == lease.lease_epoch()) {
    for (Attempt& attempt : attempts_) {
      if (attempt.lease.job() == lease.job() &&
          attempt.lease.lease_epoch() == lease.lease_epoch()) {
        return &attempt;
      }
    }
  }
  ++fenced_;
  *status = ErrorWithReason(
      grpc::StatusCode::ABORTED, "LEASE_LOST",
      absl::StrCat("epoch ", lease.lease_epoch(), " of ", lease.job(), " is not the current one"));
  return nullptr;
}

grpc::Status FakeWorkerService::AcquireLease(grpc::ServerContext* context,
                                             const v1::AcquireLeaseRequest* request,
                                             v1::AcquireLeaseResponse* response) {
  absl::MutexLock lock(&mutex_);
  worker_ = request->worker();
  if (!failure_.ok()) return failure_;
  const auto ready = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return !queue_.empty() || !failure_.ok();
  };
  const absl::Time end = absl::Now() + Get(request->wait());
  while (!context->IsCancelled() && absl::Now() < end &&
         !mutex_.AwaitWithTimeout(absl::Condition(&ready), absl::Milliseconds(20))) {
  }
  if (!failure_.ok()) return failure_;
  if (queue_.empty() || context->IsCancelled()) return grpc::Status::OK;
  const Waiting next = std::move(queue_.front());
  queue_.pop_front();
  v1::Lease& lease = current_[next.job];
  lease.set_job(next.job);
  lease.set_attempt(lease.attempt() + 1);
  lease.set_lease_epoch(lease.lease_epoch() + 1);
  attempts_.push_back({.lease = lease});
  *response->mutable_lease() = lease;
  *response->mutable_spec() = next.spec;
  response->mutable_allowed_roots()->Assign(roots_.begin(), roots_.end());
  Set(lease_, response->mutable_lease_duration());
  Set(heartbeat_, response->mutable_heartbeat_interval());
  return grpc::Status::OK;
}

grpc::Status FakeWorkerService::Heartbeat(grpc::ServerContext*, const v1::HeartbeatRequest* request,
                                          v1::HeartbeatResponse* response) {
  absl::MutexLock lock(&mutex_);
  grpc::Status status;
  Attempt* attempt = Find(request->lease(), &status);
  if (attempt == nullptr) return status;
  ++attempt->heartbeats;
  attempt->obeying = request->obeying();
  response->set_command(command_);
  Set(lease_, response->mutable_lease_duration());
  return grpc::Status::OK;
}

grpc::Status FakeWorkerService::ReportEvents(grpc::ServerContext*,
                                             const v1::ReportEventsRequest* request,
                                             v1::ReportEventsResponse* response) {
  absl::MutexLock lock(&mutex_);
  grpc::Status status;
  Attempt* attempt = Find(request->lease(), &status);
  if (attempt == nullptr) return status;
  for (const v1::AttemptEvent& event : request->events()) {
    if (attempt->events.empty() || event.sequence() > attempt->events.back().sequence()) {
      attempt->events.push_back(event);
    }
  }
  if (!attempt->events.empty()) response->set_last_sequence(attempt->events.back().sequence());
  response->set_command(command_);
  return grpc::Status::OK;
}

grpc::Status FakeWorkerService::AppendLogs(grpc::ServerContext*,
                                           const v1::AppendLogsRequest* request,
                                           v1::AppendLogsResponse* response) {
  absl::MutexLock lock(&mutex_);
  if (!log_failure_.ok()) return log_failure_;
  grpc::Status status;
  Attempt* attempt = Find(request->lease(), &status);
  if (attempt == nullptr) return status;
  ++attempt->log_calls;
  for (const v1::AttemptLogLine& line : request->lines()) {
    if (attempt->lines.empty() || line.sequence() > attempt->lines.back().sequence())
      attempt->lines.push_back(line);
  }
  if (!attempt->lines.empty()) response->set_last_sequence(attempt->lines.back().sequence());
  return grpc::Status::OK;
}

grpc::Status FakeWorkerService::CompleteAttempt(grpc::ServerContext*,
                                                const v1::CompleteAttemptRequest* request,
                                                v1::CompleteAttemptResponse*) {
  absl::MutexLock lock(&mutex_);
  grpc::Status status;
  Attempt* attempt = Find(request->lease(), &status);
  if (attempt == nullptr) return status;
  attempt->outcome = *request;
  return grpc::Status::OK;
}

FakeWorkerServer::FakeWorkerServer(const std::string& folder)
    : address_(absl::StrCat("unix:", folder, "/server.sock")) {
  Start();
}

FakeWorkerServer::~FakeWorkerServer() { Stop(); }

void FakeWorkerServer::Start() {
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
  builder.RegisterService(&service_);
  server_ = builder.BuildAndStart();
}

void FakeWorkerServer::Stop() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_.reset();
}

}  // namespace latentforge
