// Errors of the API: an absl::Status whose payloads are google.rpc details. The
// reasons are part of the API.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/rpc/status.pb.h"

namespace latentforge::service {

inline constexpr char kErrorDomain[] = "latentforge";

// Reasons that more than one place uses.
inline constexpr char kInvalidField[] = "INVALID_FIELD";
inline constexpr char kJobNotFound[] = "JOB_NOT_FOUND";
inline constexpr char kLeaseLost[] = "LEASE_LOST";
inline constexpr char kLeaseHeldByAnother[] = "LEASE_HELD_BY_ANOTHER";
inline constexpr char kConcurrentTransition[] = "CONCURRENT_TRANSITION";
inline constexpr char kDraining[] = "DRAINING";
inline constexpr char kOutputInUse[] = "OUTPUT_IN_USE";
inline constexpr char kWorkerNameTaken[] = "WORKER_NAME_TAKEN";
inline constexpr char kQuotaQueuedJobs[] = "QUOTA_QUEUED_JOBS";
inline constexpr char kQuotaQueuedKinds[] = "QUOTA_QUEUED_KINDS";
inline constexpr char kRateLimited[] = "RATE_LIMITED";
inline constexpr char kRequestIdReused[] = "REQUEST_ID_REUSED";
inline constexpr char kSequenceCompacted[] = "SEQUENCE_COMPACTED";
inline constexpr char kStoreBusy[] = "STORE_BUSY";
inline constexpr char kStoreDown[] = "STORE_DOWN";

// The description goes on after the name of the field ("is 2, expected 1", "has 70
// bytes"), or is a sentence of its own ("/a does not exist").
struct FieldViolation {
  std::string field;
  std::string description;
};

// A status with one google.rpc.ErrorInfo. `metadata` repeats the dynamic parts
// of the message for programs.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message,
                       const std::map<std::string, std::string>& metadata = {});

// A status with a BadRequest that lists every violation; the message repeats them.
// `violations` is not empty.
absl::Status MakeFieldError(absl::string_view reason, const std::vector<FieldViolation>& violations,
                            const std::map<std::string, std::string>& metadata = {},
                            absl::StatusCode code = absl::StatusCode::kInvalidArgument);

// Adds google.rpc.RetryInfo.
absl::Status WithRetryDelay(absl::Status status, absl::Duration delay);

// Adds google.rpc.QuotaFailure with one violation.
absl::Status WithQuotaFailure(absl::Status status, absl::string_view subject,
                              absl::string_view description);

// The reason of the ErrorInfo, or a generic one of the code ("NOT_FOUND").
std::string ReasonOf(const absl::Status& status);

// The wire form: code, message, and every detail with exactly one ErrorInfo.
google::rpc::Status ToRpcStatus(const absl::Status& status);

}  // namespace latentforge::service
