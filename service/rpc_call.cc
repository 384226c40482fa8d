#include "service/rpc_call.h"

#include "base/status_macros.h"
#include "service/auth/access.h"
#include "service/call_credentials.h"

namespace latentforge::service {
namespace {

absl::StatusOr<Caller> Admit(const Authenticator& authenticator, RpcMethod method,
                             const grpc::ServerContextBase& context) {
  const Credentials credentials =
      CredentialsOf(context.client_metadata(), *context.auth_context(), context.peer());
  LF_ASSIGN_OR_RETURN(Caller caller, authenticator.Authenticate(credentials));
  LF_RETURN_IF_ERROR(Authorize(caller.identity, method.service, method.method));
  return caller;
}

}  // namespace

RpcCall::RpcCall(const RpcParts& parts, RpcMethod method, const grpc::ServerContextBase& context)
    : parts_(parts),
      method_(method),
      start_(parts.clock.Monotonic()),
      caller_(Admit(parts.authenticator, method, context)) {
  parts_.in_flight.Begin();
  parts_.observer.RpcStarted(method_.service, method_.method);
}

absl::Status RpcCall::CheckStillValid() const {
  return parts_.authenticator.CheckStillValid(*caller_, parts_.clock.Now());
}

void RpcCall::Handled(const absl::Status& status) const {
  parts_.observer.RpcHandled(method_.service, method_.method, status,
                             parts_.clock.Monotonic() - start_);
  parts_.in_flight.End();
}

}  // namespace latentforge::service
