#include "service/call_credentials.h"

#include <grpc/grpc_security_constants.h>

#include "absl/strings/match.h"

namespace latentforge::service {
namespace {

std::vector<std::string> Property(const grpc::AuthContext& security, const char* name) {
  std::vector<std::string> values;
  for (const grpc::string_ref& value : security.FindPropertyValues(name))
    values.emplace_back(value.data(), value.size());
  return values;
}

Transport TransportOf(const grpc::AuthContext& security, const std::string& peer) {
  for (const std::string& type : Property(security, GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME)) {
    if (type == GRPC_SSL_TRANSPORT_SECURITY_TYPE || type == GRPC_TLS_TRANSPORT_SECURITY_TYPE)
      return Transport::kTls;
  }
  return absl::StartsWith(peer, "unix:") ? Transport::kUnixSocket : Transport::kLoopback;
}

}  // namespace

Credentials CredentialsOf(const CallMetadata& metadata, const grpc::AuthContext& security,
                          const std::string& peer) {
  Credentials credentials;
  const auto [first, last] = metadata.equal_range("authorization");
  for (auto header = first; header != last; ++header)
    credentials.authorization.emplace_back(header->second.data(), header->second.size());
  credentials.transport = TransportOf(security, peer);
  if (!security.IsPeerAuthenticated()) return credentials;
  credentials.certificate_uris = Property(security, GRPC_PEER_URI_PROPERTY_NAME);
  const std::vector<std::string> names = Property(security, GRPC_X509_CN_PROPERTY_NAME);
  if (!names.empty()) credentials.certificate_name = names.front();
  return credentials;
}

}  // namespace latentforge::service
