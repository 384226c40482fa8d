#include "service/workers_rpc.h"

#include "service/acquire_reactor.h"

namespace latentforge::service {
namespace {

constexpr char kService[] = "latentforge.v1.WorkerService";

}  // namespace

grpc::ServerUnaryReactor* WorkersRpc::AcquireLease(grpc::CallbackServerContext* context,
                                                   const v1::AcquireLeaseRequest* request,
                                                   v1::AcquireLeaseResponse* response) {
  return AcquireReactor::Start(scheduler_, rpc_, *context, *request, *response);
}

grpc::ServerUnaryReactor* WorkersRpc::Heartbeat(grpc::CallbackServerContext* context,
                                                const v1::HeartbeatRequest* request,
                                                v1::HeartbeatResponse* response) {
  return RunUnary(rpc_, {kService, "Heartbeat"}, context, request, response,
                  [this](const auto& call, const Identity& caller) {
                    return scheduler_.Heartbeat(caller, call);
                  });
}

grpc::ServerUnaryReactor* WorkersRpc::ReportEvents(grpc::CallbackServerContext* context,
                                                   const v1::ReportEventsRequest* request,
                                                   v1::ReportEventsResponse* response) {
  return RunUnary(rpc_, {kService, "ReportEvents"}, context, request, response,
                  [this](const auto& call, const Identity& caller) {
                    return scheduler_.ReportEvents(caller, call);
                  });
}

grpc::ServerUnaryReactor* WorkersRpc::AppendLogs(grpc::CallbackServerContext* context,
                                                 const v1::AppendLogsRequest* request,
                                                 v1::AppendLogsResponse* response) {
  return RunUnary(
      rpc_, {kService, "AppendLogs"}, context, request, response,
      [this](const auto& call, const Identity& caller) { return logs_.Append(caller, call); });
}

grpc::ServerUnaryReactor* WorkersRpc::CompleteAttempt(grpc::CallbackServerContext* context,
                                                      const v1::CompleteAttemptRequest* request,
                                                      v1::CompleteAttemptResponse* response) {
  return RunUnary(rpc_, {kService, "CompleteAttempt"}, context, request, response,
                  [this](const auto& call, const Identity& caller) {
                    return scheduler_.Complete(caller, call);
                  });
}

grpc::ServerUnaryReactor* WorkersRpc::ListWorkers(grpc::CallbackServerContext* context,
                                                  const v1::ListWorkersRequest* request,
                                                  v1::ListWorkersResponse* response) {
  return RunUnary(rpc_, {kService, "ListWorkers"}, context, request, response,
                  [this](const auto& call, const Identity& caller) {
                    auto listed = scheduler_.ListWorkers(call);
                    if (listed.ok() && caller.role == Role::kUser)
                      for (v1::Worker& worker : *listed->mutable_workers()) worker.clear_leases();
                    return listed;
                  });
}

}  // namespace latentforge::service
