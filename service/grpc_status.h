// absl::Status as grpc::Status.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace latentforge::service {

// Carries google.rpc.Status in the details. Message and details are cut to what
// fits into the 8 KiB of trailing metadata that clients accept.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace latentforge::service
