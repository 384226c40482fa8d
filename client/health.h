// grpc.health.v1 without its generated code: two messages of one field each.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"

namespace latentforge::client {

// Asks through a fresh channel to `address`, and so a new connection, for the health of
// `service` ("" is the server as a whole). "SERVING", "NOT_SERVING", "UNKNOWN" or
// "SERVICE_UNKNOWN"; the RPC's error otherwise.
absl::StatusOr<std::string> CheckHealth(grpc::Channel& channel, const std::string& address,
                                        const std::string& service, absl::Duration timeout);

// Encodes HealthCheckRequest{service = 1}; decodes HealthCheckResponse{status = 1}.
// DataLoss for bytes that are no such message.
std::string EncodeHealthRequest(const std::string& service);
absl::StatusOr<int> DecodeHealthResponse(const std::string& bytes);

}  // namespace latentforge::client
