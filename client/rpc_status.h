// gRPC errors with google.rpc details as absl::Status.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace latentforge::client {

// The same code and message; ErrorInfo's reason and BadRequest's violations
// become the payloads of client/error.h, and what helps against a job's state the next step, with
// `address`, the server's, where it is given. Details that do not parse are ignored.
absl::Status FromRpcStatus(const grpc::Status& status, absl::string_view address = "");

// The connection failed because the server's certificate was refused, which gRPC says in
// words alone.
bool IsMistrust(const absl::Status& status);

// The error of a call that UNAVAILABLE or DEADLINE_EXCEEDED ended, with the server's address and
// the reason SERVER_NOT_TRUSTED or SERVER_UNREACHABLE; one that closes connections, as a server
// with TLS does with those in the clear, also with its next step.
absl::Status Unreachable(const absl::Status& status, const std::string& address);

}  // namespace latentforge::client
