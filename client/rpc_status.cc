#include "client/rpc_status.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "client/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace latentforge::client {

absl::Status FromRpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return result;
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad_request;
    if (detail.UnpackTo(&info)) {
      result = WithReason(std::move(result), info.reason());
    } else if (detail.UnpackTo(&bad_request)) {
      std::vector<FieldViolation> violations;
      for (const auto& violation : bad_request.field_violations()) {
        violations.push_back({violation.field(), violation.description()});
      }
      result = WithViolations(std::move(result), violations);
    }
  }
  return result;
}

bool IsMistrust(const absl::Status& status) {
  if (!absl::IsUnavailable(status)) return false;
  const std::string message = absl::AsciiStrToLower(status.message());
  return absl::StrContains(message, "certificate verify failed") ||
         absl::StrContains(message, "verification check failed");
}

}  // namespace latentforge::client
