// The typed client of the API: every call has a deadline, and what may be
// repeated safely is repeated when the server is away for a moment.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "latentforge/v1/job_service.grpc.pb.h"
#include "latentforge/v1/worker_service.grpc.pb.h"
#include "proto/channel_security.h"

namespace latentforge::client {

struct ClientOptions {
  absl::Duration call_timeout = absl::Seconds(10);
  int max_tries = 4;  // of reads, and of CreateJob with a request_id
  absl::Duration first_backoff = absl::Milliseconds(100);
};

// A channel to ADDRESS: "host:port" or "unix:/path". The errors of
// MakeChannelCredentials.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const std::string& address,
                                                           const ChannelSecurity& security = {});

// Safe for concurrent use. Errors carry reason and violations (client/error.h);
// Unavailable and DeadlineExceeded also name the server and the next step.
class ConversionClient {
 public:
  // `address` is for messages. Borrows the clock.
  ConversionClient(std::shared_ptr<grpc::Channel> channel, std::string address, Clock& clock,
                   ClientOptions options = {});

  absl::StatusOr<v1::CreateJobResponse> CreateJob(const v1::CreateJobRequest& request);
  absl::StatusOr<v1::Job> GetJob(const std::string& name);
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request);
  // These return the job after the call. Each is repeated where the server is away:
  // doing it twice is doing it once.
  absl::StatusOr<v1::Job> CancelJob(const std::string& name);
  absl::StatusOr<v1::Job> PauseJob(const std::string& name);
  absl::StatusOr<v1::Job> ResumeJob(const std::string& name);
  // Not repeated: the second call would find a queued job and be refused.
  absl::StatusOr<v1::Job> RetryJob(const std::string& name);
  absl::StatusOr<v1::ListAttemptsResponse> ListAttempts(const v1::ListAttemptsRequest& request);
  absl::Status DeleteJob(const std::string& name);
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers(const v1::ListWorkersRequest& request);

  // The version that the server names in its answers ("latentforge-version" in the
  // initial metadata). NotFound when it names none.
  absl::StatusOr<std::string> ServerVersion();

  // Opens one watch and passes its messages to `receive` until the stream ends or
  // `receive` returns false. OK when the server ended the stream. `context` can be
  // cancelled from another thread; its deadline, `timeout` from now, is set here.
  absl::Status WatchOnce(const v1::WatchJobRequest& request, absl::Duration timeout,
                         grpc::ClientContext* context,
                         absl::FunctionRef<bool(const v1::WatchJobResponse&)> receive);

  // The same for one ReadLogs call.
  absl::Status ReadLogsOnce(const v1::ReadLogsRequest& request, absl::Duration timeout,
                            grpc::ClientContext* context,
                            absl::FunctionRef<bool(const v1::ReadLogsResponse&)> receive);

  const std::string& address() const { return address_; }

 private:
  enum class Repeat { kNo, kYes };
  template <typename Response>
  absl::StatusOr<Response> Call(
      Repeat repeat, absl::FunctionRef<grpc::Status(grpc::ClientContext*, Response*)> call);
  // Calls a method that takes a job's name and returns the job.
  template <typename Request, typename Response>
  absl::StatusOr<v1::Job> CallOnJob(const std::string& name, Repeat repeat,
                                    grpc::Status (v1::JobService::Stub::*method)(
                                        grpc::ClientContext*, const Request&, Response*));
  template <typename Response>
  absl::Status Receive(grpc::ClientReader<Response>& reader, grpc::ClientContext* context,
                       absl::FunctionRef<bool(const Response&)> receive);
  absl::Status Explain(const grpc::Status& status) const;

  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::WorkerService::Stub> workers_;
  const std::string address_;
  Clock& clock_;
  const ClientOptions options_;
};

}  // namespace latentforge::client
