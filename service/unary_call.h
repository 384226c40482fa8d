// One unary call: admitted, run on the pool, finished with a rich status.
#pragma once

#include <utility>

#include "absl/status/statusor.h"
#include "base/version.h"
#include "grpcpp/server_context.h"
#include "service/grpc_status.h"
#include "service/rpc_call.h"

namespace latentforge::service {

// Runs handler(request, identity) -> StatusOr<Response> on the pool, for callers that may
// call `method`, and finishes the call. Every answer names the server's version in its
// initial metadata.
template <typename Request, typename Response, typename Handler>
grpc::ServerUnaryReactor* RunUnary(const RpcParts& parts, RpcMethod method,
                                   grpc::CallbackServerContext* context, const Request* request,
                                   Response* response, Handler handler) {
  context->AddInitialMetadata("latentforge-version", kVersion);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  RpcCall call(parts, method, *context);
  if (!call.caller().ok()) {
    call.Handled(call.caller().status());
    reactor->Finish(ToGrpcStatus(call.caller().status()));
    return reactor;
  }
  parts.pool.Submit(
      [call = std::move(call), reactor, request, response, handler = std::move(handler)] {
        absl::StatusOr<Response> result = handler(*request, call.caller()->identity);
        if (result.ok()) *response = *std::move(result);
        call.Handled(result.status());
        reactor->Finish(ToGrpcStatus(result.status()));
      });
  return reactor;
}

}  // namespace latentforge::service
