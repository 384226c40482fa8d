// One unary call: admitted, run on the pool, finished with a rich status.
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/version.h"
#include "grpcpp/server_context.h"
#include "service/grpc_status.h"
#include "service/rpc_call.h"

namespace latentforge::service {

// The job that a call was about: of its answer, else of its request.
template <typename Request, typename Response>
std::string JobOf(const Request& request, const Response& response) {
  if constexpr (requires { response.job().name(); }) {
    if (response.has_job()) return response.job().name();
  }
  if constexpr (requires { request.lease().job(); }) return request.lease().job();
  if constexpr (requires { request.name(); }) return request.name();
  return "";
}

// Runs handler(request, identity) -> StatusOr<Response> on the pool, for callers that may
// call `method` and still wait for the answer when it is their turn, and finishes the call. Every
// answer names the server's version in its initial metadata.
template <typename Request, typename Response, typename Handler>
grpc::ServerUnaryReactor* RunUnary(const RpcParts& parts, RpcMethod method,
                                   grpc::CallbackServerContext* context, const Request* request,
                                   Response* response, Handler handler) {
  context->AddInitialMetadata("latentforge-version", kVersion);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  RpcCall call(parts, method, *context);
  if (!call.caller().ok()) {
    call.Handled(call.caller().status(), JobOf(*request, *response));
    reactor->Finish(ToGrpcStatus(call.caller().status()));
    return reactor;
  }
  parts.pool.Submit(
      [call = std::move(call), context, reactor, request, response, handler = std::move(handler)] {
        // Its deadline is over, or it left: nobody would hear the answer.
        absl::StatusOr<Response> result = absl::CancelledError("the caller has gone");
        if (!context->IsCancelled()) result = handler(*request, call.caller()->identity);
        if (result.ok()) *response = *std::move(result);
        call.Handled(result.status(), JobOf(*request, *response));
        reactor->Finish(ToGrpcStatus(result.status()));
      });
  return reactor;
}

}  // namespace latentforge::service
