#include "client/rpc_status.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "latentforge/v1/job.pb.h"
#include "proto/channel_security.h"

namespace latentforge::client {

namespace {

// What helps when a job's state does not allow a call, by that state; empty for other errors.
std::string NextStepByState(const google::rpc::ErrorInfo& info, absl::string_view address) {
  const auto state = info.metadata().find("state");
  const auto job = info.metadata().find("job");
  if (state == info.metadata().end() || job == info.metadata().end()) return "";
  // A command to paste holds no more than the name of a job.
  const bool is_name = std::all_of(job->second.begin(), job->second.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '/';
  });
  if (!is_name) return "";
  const auto command = [&, job](const char* verb, const char* what) {
    const std::string server = address.empty() ? "" : absl::StrCat(" --server ", address);
    return absl::StrCat("latentforge job ", verb, " ", job->second, server, "  (", what, ")");
  };
  const bool retryable = state->second == v1::JobState_Name(v1::JOB_STATE_FAILED) ||
                         state->second == v1::JobState_Name(v1::JOB_STATE_CANCELLED);
  const bool succeeded = state->second == v1::JobState_Name(v1::JOB_STATE_SUCCEEDED);
  if (info.reason() == "JOB_TERMINAL") {
    return retryable ? command("retry", "queues it again") : command("get", "shows its result");
  }
  if (info.reason() != "JOB_NOT_RETRYABLE" || retryable) return "";
  return succeeded ? "submit it again with another --out: latentforge job submit"
                   : command("watch", "it has not ended");
}

}  // namespace

absl::Status FromRpcStatus(const grpc::Status& status, absl::string_view address) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return result;
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad_request;
    if (detail.UnpackTo(&info)) {
      result = WithReason(std::move(result), info.reason());
      result = WithNextStep(std::move(result), NextStepByState(info, address));
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

absl::Status Unreachable(const absl::Status& status, const std::string& address) {
  if (IsMistrust(status))
    return WithReason(Annotate(status, absl::StrCat("server ", address, " is not trusted")),
                      "SERVER_NOT_TRUSTED");
  const bool hung_up = ClosesConnections(status.message());
  const absl::Status result = WithReason(
      Annotate(status, absl::StrCat("server ", address,
                                    hung_up ? " closed the connection" : " did not answer")),
      "SERVER_UNREACHABLE");
  return hung_up ? WithNextStep(result, absl::StrCat(kTlsHint,
                                                     "; if it has none, it is no "
                                                     "latentforge-server"))
                 : result;
}

}  // namespace latentforge::client
