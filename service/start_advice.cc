#include "service/start_advice.h"

namespace latentforge::service {

std::string StartAdvice(const absl::Status& error) {
  switch (error.code()) {
    case absl::StatusCode::kAlreadyExists:
      return "end the process that listens there, or choose another address: --listen, "
             "--metrics-address";
    case absl::StatusCode::kNotFound:
      return "correct the flag that names this path, or make what it names";
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return "let the server's user do this, or name another path or address";
    case absl::StatusCode::kFailedPrecondition:
      return "end the process that the message names, or give this server its own --database";
    case absl::StatusCode::kUnavailable:
      return "look whether this machine has the address, and can reach the database, that the "
             "message names";
    case absl::StatusCode::kResourceExhausted:
      return "free what the message says is used up";
    default:
      return "correct the flag or file that the message names; latentforge-server --help";
  }
}

}  // namespace latentforge::service
