#include "service/rpc_call.h"

#include <grpc/grpc_security_constants.h>

#include "absl/strings/match.h"
#include "base/status_macros.h"
#include "grpcpp/security/auth_context.h"
#include "service/auth/access.h"

namespace latentforge::service {
namespace {

std::vector<std::string> Property(const grpc::AuthContext& context, const char* name) {
  std::vector<std::string> values;
  for (const grpc::string_ref& value : context.FindPropertyValues(name))
    values.emplace_back(value.data(), value.size());
  return values;
}

Transport TransportOf(const grpc::ServerContextBase& context, const grpc::AuthContext& security) {
  for (const std::string& type : Property(security, GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME)) {
    if (type == GRPC_SSL_TRANSPORT_SECURITY_TYPE || type == GRPC_TLS_TRANSPORT_SECURITY_TYPE)
      return Transport::kTls;
  }
  return absl::StartsWith(context.peer(), "unix:") ? Transport::kUnixSocket : Transport::kLoopback;
}

Credentials CredentialsOf(const grpc::ServerContextBase& context) {
  Credentials credentials;
  const auto [first, last] = context.client_metadata().equal_range("authorization");
  for (auto header = first; header != last; ++header)
    credentials.authorization.emplace_back(header->second.data(), header->second.size());
  const std::shared_ptr<const grpc::AuthContext> security = context.auth_context();
  credentials.transport = TransportOf(context, *security);
  if (!security->IsPeerAuthenticated()) return credentials;
  credentials.certificate_uris = Property(*security, GRPC_PEER_URI_PROPERTY_NAME);
  const std::vector<std::string> names = Property(*security, GRPC_X509_CN_PROPERTY_NAME);
  if (!names.empty()) credentials.certificate_name = names.front();
  return credentials;
}

absl::StatusOr<Caller> Admit(const Authenticator& authenticator, RpcMethod method,
                             const grpc::ServerContextBase& context) {
  LF_ASSIGN_OR_RETURN(Caller caller, authenticator.Authenticate(CredentialsOf(context)));
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
