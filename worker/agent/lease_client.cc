#include "worker/agent/lease_client.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace latentforge::agent {
namespace {

constexpr char kReasonUrl[] = "latentforge/error-reason";
constexpr char kRetryDelayUrl[] = "latentforge/retry-delay-ns";
constexpr char kLeaseLost[] = "LEASE_LOST";
constexpr char kLeaseHeldByAnother[] = "LEASE_HELD_BY_ANOTHER";
constexpr char kWorkerNameTaken[] = "WORKER_NAME_TAKEN";

// What the status's google.rpc details say.
struct ErrorDetails {
  std::string reason;                         // empty without ErrorInfo
  std::optional<absl::Duration> retry_delay;  // of RetryInfo
};

ErrorDetails DetailsOf(const grpc::Status& status) {
  ErrorDetails found;
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return found;
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::RetryInfo retry;
    if (any.Is<google::rpc::ErrorInfo>() && any.UnpackTo(&info)) found.reason = info.reason();
    if (any.Is<google::rpc::RetryInfo>() && any.UnpackTo(&retry))
      found.retry_delay = absl::Seconds(retry.retry_delay().seconds()) +
                          absl::Nanoseconds(retry.retry_delay().nanos());
  }
  return found;
}

absl::Status ToAbslStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const auto [reason, retry_delay] = DetailsOf(status);
  absl::Status converted(
      static_cast<absl::StatusCode>(status.error_code()),
      reason.empty() ? status.error_message() : absl::StrCat(reason, ": ", status.error_message()));
  if (!reason.empty()) converted.SetPayload(kReasonUrl, absl::Cord(reason));
  if (retry_delay.has_value())
    converted.SetPayload(kRetryDelayUrl,
                         absl::Cord(absl::StrCat(absl::ToInt64Nanoseconds(*retry_delay))));
  return converted;
}

}  // namespace

bool IsLeaseLost(const absl::Status& status) {
  if (status.code() == absl::StatusCode::kNotFound) return true;
  const auto reason = status.GetPayload(kReasonUrl);
  if (reason.has_value() && *reason == kLeaseHeldByAnother) return true;
  if (status.code() != absl::StatusCode::kAborted) return false;
  return !reason.has_value() || *reason == kLeaseLost;
}

std::optional<absl::Duration> NameTakenFor(const absl::Status& status) {
  const auto reason = status.GetPayload(kReasonUrl);
  if (!reason.has_value() || *reason != kWorkerNameTaken) return std::nullopt;
  int64_t nanos = 0;
  const auto delay = status.GetPayload(kRetryDelayUrl);
  const bool told = delay.has_value() && absl::SimpleAtoi(std::string(*delay), &nanos);
  return told ? absl::Nanoseconds(nanos) : absl::ZeroDuration();
}

bool IsTransient(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kInternal:  // a connection that broke within a call
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnauthenticated:  // token or certificate are being replaced
      return true;
    case absl::StatusCode::kAborted:
      return !IsLeaseLost(status);
    default:
      return false;
  }
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeServerChannel(const std::string& address,
                                                                 const ChannelSecurity& security) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  // Longer than any call is silent, so that a live server never sees a ping.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 40000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  LF_ASSIGN_OR_RETURN(const auto credentials, MakeChannelCredentials(address, security, arguments));
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

// A context that the client can cancel while the call runs.
struct LeaseClient::Call {
  Call(LeaseClient& owner, bool acquire, absl::Duration timeout)
      : client(owner), calls(acquire ? owner.acquiring_ : owner.others_) {
    context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
    absl::MutexLock lock(&client.mutex_);
    if (client.all_stopped_ || (acquire && client.acquire_stopped_)) context.TryCancel();
    calls.insert(&context);
  }
  ~Call() {
    absl::MutexLock lock(&client.mutex_);
    calls.erase(&context);
  }

  LeaseClient& client;
  std::set<grpc::ClientContext*>& calls;
  grpc::ClientContext context;
};

LeaseClient::LeaseClient(std::shared_ptr<grpc::Channel> channel, absl::Duration rpc_timeout,
                         const Clock& clock)
    : stub_(v1::WorkerService::NewStub(std::move(channel))),
      rpc_timeout_(rpc_timeout),
      clock_(clock) {}

absl::Status LeaseClient::Finish(const grpc::Status& status) {
  const grpc::StatusCode code = status.error_code();
  absl::MutexLock lock(&mutex_);
  if (code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::DEADLINE_EXCEEDED) {
    if (!unreachable_since_.has_value()) unreachable_since_ = clock_.Monotonic();
  } else if (code != grpc::StatusCode::CANCELLED) {  // that was us
    unreachable_since_.reset();
    reached_ = reached_ || status.ok();
  }
  return ToAbslStatus(status);
}

absl::StatusOr<v1::AcquireLeaseResponse> LeaseClient::Acquire(const v1::WorkerInfo& worker,
                                                              absl::Duration wait) {
  v1::AcquireLeaseRequest request;
  *request.mutable_worker() = worker;
  request.mutable_wait()->set_seconds(absl::ToInt64Seconds(wait));
  request.mutable_wait()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(wait % absl::Seconds(1))));
  v1::AcquireLeaseResponse response;
  Call call(*this, /*acquire=*/true, wait + rpc_timeout_);
  LF_RETURN_IF_ERROR(Finish(stub_->AcquireLease(&call.context, request, &response)));
  return response;
}

absl::StatusOr<v1::HeartbeatResponse> LeaseClient::Heartbeat(const v1::HeartbeatRequest& request,
                                                             absl::Duration timeout) {
  v1::HeartbeatResponse response;
  Call call(*this, /*acquire=*/false, std::min(timeout, rpc_timeout_));
  LF_RETURN_IF_ERROR(Finish(stub_->Heartbeat(&call.context, request, &response)));
  return response;
}

absl::StatusOr<v1::ReportEventsResponse> LeaseClient::ReportEvents(
    const v1::ReportEventsRequest& request) {
  v1::ReportEventsResponse response;
  Call call(*this, /*acquire=*/false, rpc_timeout_);
  LF_RETURN_IF_ERROR(Finish(stub_->ReportEvents(&call.context, request, &response)));
  return response;
}

absl::StatusOr<v1::AppendLogsResponse> LeaseClient::AppendLogs(const v1::AppendLogsRequest& request,
                                                               absl::Duration timeout) {
  v1::AppendLogsResponse response;
  Call call(*this, /*acquire=*/false, std::min(timeout, rpc_timeout_));
  LF_RETURN_IF_ERROR(ToAbslStatus(stub_->AppendLogs(&call.context, request, &response)));
  return response;
}

absl::Status LeaseClient::Complete(const v1::CompleteAttemptRequest& request) {
  v1::CompleteAttemptResponse response;
  Call call(*this, /*acquire=*/false, rpc_timeout_);
  return Finish(stub_->CompleteAttempt(&call.context, request, &response));
}

void LeaseClient::StopAcquiring() {
  absl::MutexLock lock(&mutex_);
  acquire_stopped_ = true;
  for (grpc::ClientContext* context : acquiring_) context->TryCancel();
}

void LeaseClient::StopAll() {
  absl::MutexLock lock(&mutex_);
  acquire_stopped_ = true;
  all_stopped_ = true;
  for (grpc::ClientContext* context : acquiring_) context->TryCancel();
  for (grpc::ClientContext* context : others_) context->TryCancel();
}

absl::Duration LeaseClient::UnreachableFor() const {
  absl::MutexLock lock(&mutex_);
  return unreachable_since_.has_value() ? clock_.Monotonic() - *unreachable_since_
                                        : absl::ZeroDuration();
}

bool LeaseClient::EverReached() const {
  absl::MutexLock lock(&mutex_);
  return reached_;
}

}  // namespace latentforge::agent
