#include "service/jobs_rpc.h"

namespace latentforge::service {
namespace {

constexpr char kService[] = "latentforge.v1.JobService";

}  // namespace

grpc::ServerUnaryReactor* JobsRpc::CreateJob(grpc::CallbackServerContext* context,
                                             const v1::CreateJobRequest* request,
                                             v1::CreateJobResponse* response) {
  return RunUnary(
      rpc_, {kService, "CreateJob"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return jobs_.Create(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::GetJob(grpc::CallbackServerContext* context,
                                          const v1::GetJobRequest* request,
                                          v1::GetJobResponse* response) {
  return RunUnary(
      rpc_, {kService, "GetJob"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return jobs_.Get(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::ListJobs(grpc::CallbackServerContext* context,
                                            const v1::ListJobsRequest* request,
                                            v1::ListJobsResponse* response) {
  return RunUnary(
      rpc_, {kService, "ListJobs"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return jobs_.List(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::CancelJob(grpc::CallbackServerContext* context,
                                             const v1::CancelJobRequest* request,
                                             v1::CancelJobResponse* response) {
  return RunUnary(
      rpc_, {kService, "CancelJob"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return jobs_.Cancel(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::PauseJob(grpc::CallbackServerContext* context,
                                            const v1::PauseJobRequest* request,
                                            v1::PauseJobResponse* response) {
  return RunUnary(
      rpc_, {kService, "PauseJob"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return jobs_.Pause(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::ResumeJob(grpc::CallbackServerContext* context,
                                             const v1::ResumeJobRequest* request,
                                             v1::ResumeJobResponse* response) {
  return RunUnary(
      rpc_, {kService, "ResumeJob"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return jobs_.Resume(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::RetryJob(grpc::CallbackServerContext* context,
                                            const v1::RetryJobRequest* request,
                                            v1::RetryJobResponse* response) {
  return RunUnary(
      rpc_, {kService, "RetryJob"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return jobs_.Retry(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::DeleteJob(grpc::CallbackServerContext* context,
                                             const v1::DeleteJobRequest* request,
                                             v1::DeleteJobResponse* response) {
  return RunUnary(
      rpc_, {kService, "DeleteJob"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return jobs_.Delete(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::GetAttempt(grpc::CallbackServerContext* context,
                                              const v1::GetAttemptRequest* request,
                                              v1::GetAttemptResponse* response) {
  return RunUnary(
      rpc_, {kService, "GetAttempt"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return attempts_.Get(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::ListAttempts(grpc::CallbackServerContext* context,
                                                const v1::ListAttemptsRequest* request,
                                                v1::ListAttemptsResponse* response) {
  return RunUnary(
      rpc_, {kService, "ListAttempts"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return attempts_.List(caller, call); });
}

grpc::ServerWriteReactor<v1::WatchJobResponse>* JobsRpc::WatchJob(
    grpc::CallbackServerContext* context, const v1::WatchJobRequest* request) {
  return WatchReactor::Start(watch_, rpc_, *context, *request);
}

}  // namespace latentforge::service
