// What gRPC knows of a call's sender, as Credentials.
#pragma once

#include <map>
#include <string>

#include "grpcpp/security/auth_context.h"
#include "grpcpp/support/string_ref.h"
#include "service/auth/authenticator.h"

namespace latentforge::service {

using CallMetadata = std::multimap<grpc::string_ref, grpc::string_ref>;

// `peer` is gRPC's name for the sender's address.
Credentials CredentialsOf(const CallMetadata& metadata, const grpc::AuthContext& security,
                          const std::string& peer);

}  // namespace latentforge::service
