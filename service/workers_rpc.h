// WorkerService over gRPC: passes calls on, decides nothing.
#pragma once

#include "latentforge/v1/worker_service.grpc.pb.h"
#include "service/log_intake.h"
#include "service/scheduler.h"
#include "service/unary_call.h"

namespace latentforge::service {

// Safe for concurrent use. Borrows everything.
class WorkersRpc final : public v1::WorkerService::CallbackService {
 public:
  WorkersRpc(Scheduler& scheduler, LogIntake& logs, const RpcParts& rpc)
      : scheduler_(scheduler), logs_(logs), rpc_(rpc) {}

  grpc::ServerUnaryReactor* AcquireLease(grpc::CallbackServerContext* context,
                                         const v1::AcquireLeaseRequest* request,
                                         v1::AcquireLeaseResponse* response) override;
  grpc::ServerUnaryReactor* Heartbeat(grpc::CallbackServerContext* context,
                                      const v1::HeartbeatRequest* request,
                                      v1::HeartbeatResponse* response) override;
  grpc::ServerUnaryReactor* ReportEvents(grpc::CallbackServerContext* context,
                                         const v1::ReportEventsRequest* request,
                                         v1::ReportEventsResponse* response) override;
  grpc::ServerUnaryReactor* AppendLogs(grpc::CallbackServerContext* context,
                                       const v1::AppendLogsRequest* request,
                                       v1::AppendLogsResponse* response) override;
  grpc::ServerUnaryReactor* CompleteAttempt(grpc::CallbackServerContext* context,
                                            const v1::CompleteAttemptRequest* request,
                                            v1::CompleteAttemptResponse* response) override;
  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context,
                                        const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;

 private:
  Scheduler& scheduler_;
  LogIntake& logs_;
  const RpcParts rpc_;
};

}  // namespace latentforge::service
