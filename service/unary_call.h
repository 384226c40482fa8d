// One unary call: admitted, run on the pool, finished with a rich status.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/version.h"
#include "grpcpp/alarm.h"
#include "grpcpp/server_context.h"
#include "service/errors.h"
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

// Who answers a call: the pool, or an alarm when the call has waited for the pool too long.
class Turn {
 public:
  // True for the first who asks.
  bool Take() { return !taken_.exchange(true); }

  // Calls `late` after `patience` unless the turn was taken, or this is gone.
  static void SetAlarm(const std::shared_ptr<Turn>& turn, absl::Duration patience,
                       std::function<void()> late) {
    const auto ring = [waiting = std::weak_ptr<Turn>(turn), late = std::move(late)](bool rang) {
      const std::shared_ptr<Turn> found = rang ? waiting.lock() : nullptr;
      if (found != nullptr && found->Take()) late();
    };
    turn->alarm_.Set(absl::ToChronoTime(absl::Now() + patience), ring);
  }

 private:
  std::atomic<bool> taken_ = false;
  grpc::Alarm alarm_;
};

// Runs handler(request, identity) -> StatusOr<Response> on the pool, for callers that may
// call `method` and still wait for the answer when it is their turn, and finishes the call. One
// without a deadline is answered CALL_DEADLINE when its turn has not come by call_deadline. Every
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
  const auto turn = std::make_shared<Turn>();
  if (context->deadline() == std::chrono::system_clock::time_point::max()) {
    Turn::SetAlarm(
        turn, parts.call_deadline,
        [call, reactor, job = JobOf(*request, *response), patience = parts.call_deadline] {
          const absl::Status late =
              WithRetryDelay(MakeError(absl::StatusCode::kDeadlineExceeded, "CALL_DEADLINE",
                                       absl::StrCat("the server did not come to the call within ",
                                                    absl::FormatDuration(patience),
                                                    ", which calls without a deadline have")),
                             absl::Seconds(1));
          call.Handled(late, job);
          reactor->Finish(ToGrpcStatus(late));
        });
  }
  parts.pool.Submit([call = std::move(call), turn, context, reactor, request, response,
                     handler = std::move(handler)] {
    if (!turn->Take()) return;
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
