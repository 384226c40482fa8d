#include "service/jobs_rpc.h"

#include <functional>
#include <utility>

#include "service/log_session.h"
#include "service/watch_session.h"

namespace latentforge::service {
namespace {

constexpr char kService[] = "latentforge.v1.JobService";

}  // namespace

grpc::ServerUnaryReactor* JobsRpc::CreateJob(grpc::CallbackServerContext* context,
                                             const v1::CreateJobRequest* request,
                                             v1::CreateJobResponse* response) {
  return RunUnary(rpc_, {kService, "CreateJob"}, context, request, response,
                  [this](const auto& call, const Identity& caller) {
                    return parts_.jobs.Create(caller, call);
                  });
}

grpc::ServerUnaryReactor* JobsRpc::GetJob(grpc::CallbackServerContext* context,
                                          const v1::GetJobRequest* request,
                                          v1::GetJobResponse* response) {
  return RunUnary(
      rpc_, {kService, "GetJob"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return parts_.jobs.Get(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::ListJobs(grpc::CallbackServerContext* context,
                                            const v1::ListJobsRequest* request,
                                            v1::ListJobsResponse* response) {
  return RunUnary(
      rpc_, {kService, "ListJobs"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return parts_.jobs.List(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::CancelJob(grpc::CallbackServerContext* context,
                                             const v1::CancelJobRequest* request,
                                             v1::CancelJobResponse* response) {
  return RunUnary(rpc_, {kService, "CancelJob"}, context, request, response,
                  [this](const auto& call, const Identity& caller) {
                    return parts_.jobs.Cancel(caller, call);
                  });
}

grpc::ServerUnaryReactor* JobsRpc::PauseJob(grpc::CallbackServerContext* context,
                                            const v1::PauseJobRequest* request,
                                            v1::PauseJobResponse* response) {
  return RunUnary(
      rpc_, {kService, "PauseJob"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return parts_.jobs.Pause(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::ResumeJob(grpc::CallbackServerContext* context,
                                             const v1::ResumeJobRequest* request,
                                             v1::ResumeJobResponse* response) {
  return RunUnary(rpc_, {kService, "ResumeJob"}, context, request, response,
                  [this](const auto& call, const Identity& caller) {
                    return parts_.jobs.Resume(caller, call);
                  });
}

grpc::ServerUnaryReactor* JobsRpc::RetryJob(grpc::CallbackServerContext* context,
                                            const v1::RetryJobRequest* request,
                                            v1::RetryJobResponse* response) {
  return RunUnary(
      rpc_, {kService, "RetryJob"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return parts_.jobs.Retry(caller, call); });
}

grpc::ServerUnaryReactor* JobsRpc::DeleteJob(grpc::CallbackServerContext* context,
                                             const v1::DeleteJobRequest* request,
                                             v1::DeleteJobResponse* response) {
  return RunUnary(rpc_, {kService, "DeleteJob"}, context, request, response,
                  [this](const auto& call, const Identity& caller) {
                    return parts_.jobs.Delete(caller, call);
                  });
}

grpc::ServerUnaryReactor* JobsRpc::GetAttempt(grpc::CallbackServerContext* context,
                                              const v1::GetAttemptRequest* request,
                                              v1::GetAttemptResponse* response) {
  return RunUnary(rpc_, {kService, "GetAttempt"}, context, request, response,
                  [this](const auto& call, const Identity& caller) {
                    return parts_.attempts.Get(caller, call);
                  });
}

grpc::ServerUnaryReactor* JobsRpc::ListAttempts(grpc::CallbackServerContext* context,
                                                const v1::ListAttemptsRequest* request,
                                                v1::ListAttemptsResponse* response) {
  return RunUnary(rpc_, {kService, "ListAttempts"}, context, request, response,
                  [this](const auto& call, const Identity& caller) {
                    return parts_.attempts.List(caller, call);
                  });
}

grpc::ServerWriteReactor<v1::WatchJobResponse>* JobsRpc::WatchJob(
    grpc::CallbackServerContext* context, const v1::WatchJobRequest* request) {
  return StreamReactor<v1::WatchJobResponse>::Start(
      parts_.streams, rpc_, {kService, "WatchJob"}, *context, request->has_from_sequence(),
      [this, call = *request](const Identity& caller, std::function<void()> notify) {
        return WatchSession::Start(caller, parts_.store, parts_.hub, call, std::move(notify));
      });
}

grpc::ServerWriteReactor<v1::ReadLogsResponse>* JobsRpc::ReadLogs(
    grpc::CallbackServerContext* context, const v1::ReadLogsRequest* request) {
  return StreamReactor<v1::ReadLogsResponse>::Start(
      parts_.streams, rpc_, {kService, "ReadLogs"}, *context, request->has_from_sequence(),
      [this, call = *request](const Identity& caller, const std::function<void()>&) {
        return LogSession::Start(caller, parts_.store, parts_.log_looks, call);
      });
}

}  // namespace latentforge::service
