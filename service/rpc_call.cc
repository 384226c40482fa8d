#include "service/rpc_call.h"

#include "base/log.h"
#include "service/attempt_events.h"
#include "service/auth/access.h"
#include "service/call_credentials.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

constexpr size_t kMaxJobBytes = 80;  // of what a caller gave as one

bool IsAudited(RpcMethod method) {
  const MethodAccess* const access = FindAccess(method.service, method.method);
  return access != nullptr && access->audited;
}

}  // namespace

RpcCall::RpcCall(const RpcParts& parts, RpcMethod method, const grpc::ServerContextBase& context)
    : parts_(parts),
      method_(method),
      start_(parts.clock.Monotonic()),
      caller_(parts.authenticator.Authenticate(
          CredentialsOf(context.client_metadata(), *context.auth_context(), context.peer()))) {
  if (caller_.ok()) {
    known_as_ = caller_->identity;
    const absl::Status allowed = Authorize(known_as_, method.service, method.method);
    if (!allowed.ok()) caller_ = allowed;
  }
  if (!caller_.ok()) parts_.observer.CallRefused(ReasonOf(caller_.status()));
  if (IsAudited(method)) peer_ = context.peer();
  parts_.in_flight.Begin();
  parts_.observer.RpcStarted(method_.service, method_.method);
}

absl::Status RpcCall::CheckStillValid() const {
  return parts_.authenticator.CheckStillValid(*caller_, parts_.clock.Now());
}

void RpcCall::Handled(const absl::Status& status, absl::string_view job) const {
  // An OK without a job changed nothing: no lease was there, or a job was only checked.
  if (IsAudited(method_) && !(status.ok() && job.empty())) Audit(status, job);
  parts_.observer.RpcHandled(method_.service, method_.method, status,
                             parts_.clock.Monotonic() - start_);
  parts_.in_flight.End();
}

void RpcCall::Audit(const absl::Status& status, absl::string_view job) const {
  Log(Severity::kInfo, "audit",
      {{"subject", known_as_.subject},
       {"tenant", known_as_.tenant},
       {"role", known_as_.subject.empty() ? "" : std::string(RoleName(known_as_.role))},
       {"method", method_.method},
       {"job", Truncated(job, kMaxJobBytes)},
       {"code", absl::StatusCodeToString(status.code())},
       {"reason", status.ok() ? "" : ReasonOf(status)},
       {"peer", peer_}});
}

}  // namespace latentforge::service
