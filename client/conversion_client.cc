#include "client/conversion_client.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/error.h"
#include "client/rpc_status.h"
#include "grpcpp/create_channel.h"

namespace latentforge::client {
namespace {

// The server was not there, or stopped while the call was under way.
bool IsAway(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
         status.error_code() == grpc::StatusCode::CANCELLED;
}

void SetDeadline(absl::Duration timeout, grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const std::string& address,
                                                           const ChannelSecurity& security) {
  grpc::ChannelArguments arguments;
  // A private pool: a new channel means a new connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5000);
  LF_ASSIGN_OR_RETURN(const auto credentials, MakeChannelCredentials(address, security, arguments));
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

ConversionClient::ConversionClient(std::shared_ptr<grpc::Channel> channel, std::string address,
                                   Clock& clock, ClientOptions options)
    : jobs_(v1::JobService::NewStub(channel)),
      workers_(v1::WorkerService::NewStub(channel)),
      address_(std::move(address)),
      clock_(clock),
      options_(options) {}

absl::Status ConversionClient::Explain(const grpc::Status& status) const {
  absl::Status result = FromRpcStatus(status, address_);
  // Nobody here cancelled: a server that stops ends its last calls like this.
  if (absl::IsCancelled(result)) {
    result = absl::UnavailableError(absl::StrCat("the server ended the call: ", result.message()));
  }
  const bool away = absl::IsUnavailable(result) || absl::IsDeadlineExceeded(result);
  if (!away || !ReasonOf(result).empty()) return result;
  return Unreachable(result, address_);
}

template <typename Response>
absl::StatusOr<Response> ConversionClient::Call(
    Repeat repeat, absl::FunctionRef<grpc::Status(grpc::ClientContext*, Response*)> call) {
  absl::Duration backoff = options_.first_backoff;
  for (int attempt = 1;; ++attempt) {
    grpc::ClientContext context;
    SetDeadline(options_.call_timeout, &context);
    Response response;
    const grpc::Status status = call(&context, &response);
    if (status.ok()) return response;
    if (repeat == Repeat::kNo || !IsAway(status) || attempt >= options_.max_tries) {
      return Explain(status);
    }
    clock_.SleepFor(backoff);
    backoff *= 2;
  }
}

absl::StatusOr<v1::CreateJobResponse> ConversionClient::CreateJob(
    const v1::CreateJobRequest& request) {
  const bool repeatable = !request.request_id().empty() || request.validate_only();
  return Call<v1::CreateJobResponse>(
      repeatable ? Repeat::kYes : Repeat::kNo,
      [&](grpc::ClientContext* context, v1::CreateJobResponse* response) {
        return jobs_->CreateJob(context, request, response);
      });
}

template <typename Request, typename Response>
absl::StatusOr<v1::Job> ConversionClient::CallOnJob(
    const std::string& name, Repeat repeat,
    grpc::Status (v1::JobService::Stub::*method)(grpc::ClientContext*, const Request&, Response*)) {
  Request request;
  request.set_name(name);
  LF_ASSIGN_OR_RETURN(Response response,
                      Call<Response>(repeat, [&](grpc::ClientContext* context, Response* reply) {
                        return (jobs_.get()->*method)(context, request, reply);
                      }));
  return std::move(*response.mutable_job());
}

absl::StatusOr<v1::Job> ConversionClient::GetJob(const std::string& name) {
  return CallOnJob(name, Repeat::kYes, &v1::JobService::Stub::GetJob);
}

absl::StatusOr<v1::ListJobsResponse> ConversionClient::ListJobs(
    const v1::ListJobsRequest& request) {
  return Call<v1::ListJobsResponse>(
      Repeat::kYes, [&](grpc::ClientContext* context, v1::ListJobsResponse* response) {
        return jobs_->ListJobs(context, request, response);
      });
}

absl::StatusOr<v1::Job> ConversionClient::CancelJob(const std::string& name) {
  return CallOnJob(name, Repeat::kYes, &v1::JobService::Stub::CancelJob);
}

absl::StatusOr<v1::Job> ConversionClient::PauseJob(const std::string& name) {
  return CallOnJob(name, Repeat::kYes, &v1::JobService::Stub::PauseJob);
}

absl::StatusOr<v1::Job> ConversionClient::ResumeJob(const std::string& name) {
  return CallOnJob(name, Repeat::kYes, &v1::JobService::Stub::ResumeJob);
}

absl::StatusOr<v1::Job> ConversionClient::RetryJob(const std::string& name) {
  return CallOnJob(name, Repeat::kNo, &v1::JobService::Stub::RetryJob);
}

absl::StatusOr<v1::ListAttemptsResponse> ConversionClient::ListAttempts(
    const v1::ListAttemptsRequest& request) {
  return Call<v1::ListAttemptsResponse>(
      Repeat::kYes, [&](grpc::ClientContext* context, v1::ListAttemptsResponse* response) {
        return jobs_->ListAttempts(context, request, response);
      });
}

absl::Status ConversionClient::DeleteJob(const std::string& name) {
  v1::DeleteJobRequest request;
  request.set_name(name);
  return Call<v1::DeleteJobResponse>(
             Repeat::kNo,
             [&](grpc::ClientContext* context, v1::DeleteJobResponse* response) {
               return jobs_->DeleteJob(context, request, response);
             })
      .status();
}

absl::StatusOr<v1::ListWorkersResponse> ConversionClient::ListWorkers(
    const v1::ListWorkersRequest& request) {
  return Call<v1::ListWorkersResponse>(
      Repeat::kYes, [&](grpc::ClientContext* context, v1::ListWorkersResponse* response) {
        return workers_->ListWorkers(context, request, response);
      });
}

absl::StatusOr<std::string> ConversionClient::ServerVersion() {
  v1::ListJobsRequest request;
  request.set_page_size(1);
  std::string version;
  const absl::StatusOr<v1::ListJobsResponse> response = Call<v1::ListJobsResponse>(
      Repeat::kYes, [&](grpc::ClientContext* context, v1::ListJobsResponse* reply) {
        const grpc::Status status = jobs_->ListJobs(context, request, reply);
        const auto& metadata = context->GetServerInitialMetadata();
        const auto found = metadata.find("latentforge-version");
        if (found != metadata.end()) version.assign(found->second.data(), found->second.size());
        return status;
      });
  LF_RETURN_IF_ERROR(response.status());
  if (version.empty()) {
    return absl::NotFoundError(absl::StrCat("server ", address_, " does not name its version"));
  }
  return version;
}

template <typename Response>
absl::Status ConversionClient::Receive(grpc::ClientReader<Response>& reader,
                                       grpc::ClientContext* context,
                                       absl::FunctionRef<bool(const Response&)> receive) {
  Response message;
  bool stopped = false;
  while (!stopped && reader.Read(&message)) stopped = !receive(message);
  if (stopped) context->TryCancel();
  const grpc::Status status = reader.Finish();
  return stopped ? absl::OkStatus() : Explain(status);
}

absl::Status ConversionClient::WatchOnce(
    const v1::WatchJobRequest& request, absl::Duration timeout, grpc::ClientContext* context,
    absl::FunctionRef<bool(const v1::WatchJobResponse&)> receive) {
  SetDeadline(timeout, context);
  return Receive(*jobs_->WatchJob(context, request), context, receive);
}

absl::Status ConversionClient::ReadLogsOnce(
    const v1::ReadLogsRequest& request, absl::Duration timeout, grpc::ClientContext* context,
    absl::FunctionRef<bool(const v1::ReadLogsResponse&)> receive) {
  SetDeadline(timeout, context);
  return Receive(*jobs_->ReadLogs(context, request), context, receive);
}

}  // namespace latentforge::client
