// JobService over gRPC: passes calls on, decides nothing.
#pragma once

#include "latentforge/v1/job_service.grpc.pb.h"
#include "service/attempts.h"
#include "service/jobs.h"
#include "service/log_looks.h"
#include "service/store/store.h"
#include "service/stream_reactor.h"
#include "service/unary_call.h"
#include "service/watch_hub.h"

namespace latentforge::service {

// What JobsRpc passes calls on to.
struct JobsRpcParts {
  Jobs& jobs;
  Attempts& attempts;
  Store& store;
  WatchHub& hub;
  LogLooks& log_looks;
  StreamParts streams;
};

// Safe for concurrent use. Borrows everything.
class JobsRpc final : public v1::JobService::CallbackService {
 public:
  JobsRpc(const JobsRpcParts& parts, const RpcParts& rpc) : parts_(parts), rpc_(rpc) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context,
                                      const v1::CreateJobRequest* request,
                                      v1::CreateJobResponse* response) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context,
                                   const v1::GetJobRequest* request,
                                   v1::GetJobResponse* response) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context,
                                      const v1::CancelJobRequest* request,
                                      v1::CancelJobResponse* response) override;
  grpc::ServerUnaryReactor* PauseJob(grpc::CallbackServerContext* context,
                                     const v1::PauseJobRequest* request,
                                     v1::PauseJobResponse* response) override;
  grpc::ServerUnaryReactor* ResumeJob(grpc::CallbackServerContext* context,
                                      const v1::ResumeJobRequest* request,
                                      v1::ResumeJobResponse* response) override;
  grpc::ServerUnaryReactor* RetryJob(grpc::CallbackServerContext* context,
                                     const v1::RetryJobRequest* request,
                                     v1::RetryJobResponse* response) override;
  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* context,
                                      const v1::DeleteJobRequest* request,
                                      v1::DeleteJobResponse* response) override;
  grpc::ServerUnaryReactor* GetAttempt(grpc::CallbackServerContext* context,
                                       const v1::GetAttemptRequest* request,
                                       v1::GetAttemptResponse* response) override;
  grpc::ServerUnaryReactor* ListAttempts(grpc::CallbackServerContext* context,
                                         const v1::ListAttemptsRequest* request,
                                         v1::ListAttemptsResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(
      grpc::CallbackServerContext* context, const v1::WatchJobRequest* request) override;
  grpc::ServerWriteReactor<v1::ReadLogsResponse>* ReadLogs(
      grpc::CallbackServerContext* context, const v1::ReadLogsRequest* request) override;

 private:
  const JobsRpcParts parts_;
  const RpcParts rpc_;
};

}  // namespace latentforge::service
