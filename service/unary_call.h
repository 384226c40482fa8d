// One unary call: counted, run on the pool, finished with a rich status.
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/version.h"
#include "grpcpp/server_context.h"
#include "service/grpc_status.h"
#include "service/in_flight.h"
#include "service/observer.h"
#include "service/thread_pool.h"

namespace latentforge::service {

// What every call needs. Borrows.
struct RpcParts {
  ThreadPool& pool;
  Observer& observer;
  InFlight& in_flight;
  const Clock& clock;
};

// Full name of a method, of string literals.
struct RpcMethod {
  const char* service;
  const char* method;
};

// Counts one call from construction to Handled, which must come once.
class CallTimer {
 public:
  CallTimer(const RpcParts& parts, RpcMethod method)
      : parts_(parts), method_(method), start_(parts.clock.Monotonic()) {
    parts_.in_flight.Begin();
    parts_.observer.RpcStarted(method_.service, method_.method);
  }
  void Handled(const absl::Status& status) const {
    parts_.observer.RpcHandled(method_.service, method_.method, status,
                               parts_.clock.Monotonic() - start_);
    parts_.in_flight.End();
  }

 private:
  RpcParts parts_;
  RpcMethod method_;
  absl::Duration start_;
};

// Runs handler(request) -> StatusOr<Response> on the pool and finishes the call. Every
// answer names the server's version in its initial metadata.
template <typename Request, typename Response, typename Handler>
grpc::ServerUnaryReactor* RunUnary(const RpcParts& parts, RpcMethod method,
                                   grpc::CallbackServerContext* context, const Request* request,
                                   Response* response, Handler handler) {
  context->AddInitialMetadata("latentforge-version", kVersion);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts.pool.Submit(
      [timer = CallTimer(parts, method), reactor, request, response, handler = std::move(handler)] {
        absl::StatusOr<Response> result = handler(*request);
        if (result.ok()) *response = *std::move(result);
        timer.Handled(result.status());
        reactor->Finish(ToGrpcStatus(result.status()));
      });
  return reactor;
}

}  // namespace latentforge::service
