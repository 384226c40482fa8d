// gRPC errors with google.rpc details as absl::Status.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace latentforge::client {

// The same code and message; ErrorInfo's reason and BadRequest's violations
// become the payloads of client/error.h. Details that do not parse are ignored.
absl::Status FromRpcStatus(const grpc::Status& status);

// The connection failed because the server's certificate was refused, which gRPC says in
// words alone.
bool IsMistrust(const absl::Status& status);

}  // namespace latentforge::client
