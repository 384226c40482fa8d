#include "service/metric_families.h"

#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "latentforge/v1/job_service.pb.h"
#include "latentforge/v1/worker_service.pb.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

// "RUNNING" of JOB_STATE_RUNNING as a label: "running".
std::string Label(absl::string_view name, absl::string_view prefix) {
  absl::ConsumePrefix(&name, prefix);
  return absl::AsciiStrToLower(name);
}

constexpr const char* kOutcomeLabels[] = {"succeeded",       "failed_user", "failed_system",
                                          "failed_resource", "cancelled",   "released",
                                          "lease_expired",   "deadline",    "paused"};

// Reasons that CreateJob refuses for, and that the server itself ends jobs with.
constexpr const char* kSubmitReasons[] = {"ALREADY_CONVERTED",
                                          "BAD_URI",
                                          "BUDGET_OUT_OF_RANGE",
                                          "CORPUS_NOT_READABLE",
                                          "DEADLINE_TOO_LONG",
                                          kInvalidField,
                                          "JOB_DELETED",
                                          "MALFORMED_CHECKPOINT",
                                          "MALFORMED_CONFIG",
                                          "MALFORMED_CORPUS",
                                          "MALFORMED_SAFETENSORS",
                                          "MALFORMED_TOKENIZER",
                                          "METHOD_NOT_SUPPORTED",
                                          kOutputInUse,
                                          "OUTPUT_NOT_EMPTY",
                                          "OUTPUT_NOT_WRITABLE",
                                          "OUTPUT_OVERLAPS_SOURCE",
                                          "PATH_NOT_ALLOWED",
                                          kQuotaQueuedJobs,
                                          kQuotaQueuedKinds,
                                          "RANK_OUT_OF_RANGE",
                                          kRateLimited,
                                          kRequestIdReused,
                                          "SOURCE_NOT_READABLE",
                                          kStoreBusy,
                                          kStoreDown,
                                          "STORE_FULL",
                                          "UNSUPPORTED_ARCHITECTURE"};
constexpr const char* kFailureReasons[] = {"ATTEMPT_STOPPED", "JOB_DEADLINE", "QUEUE_DEADLINE",
                                           "WORKER_LOST"};

}  // namespace

std::string StateLabel(v1::JobState state) { return Label(v1::JobState_Name(state), "JOB_STATE_"); }

std::string PhaseLabel(v1::Phase phase) {
  return v1::Phase_IsValid(phase) ? Label(v1::Phase_Name(phase), "PHASE_") : "unspecified";
}

const char* OutcomeLabel(AttemptOutcome outcome, v1::ErrorClass error_class) {
  switch (outcome) {
    case AttemptOutcome::kRunning:
      return "running";
    case AttemptOutcome::kSucceeded:
      return "succeeded";
    case AttemptOutcome::kFailed:
      if (error_class == v1::ERROR_CLASS_USER) return "failed_user";
      return error_class == v1::ERROR_CLASS_RESOURCE ? "failed_resource" : "failed_system";
    case AttemptOutcome::kCancelled:
      return "cancelled";
    case AttemptOutcome::kReleased:
      return "released";
    case AttemptOutcome::kLeaseExpired:
      return "lease_expired";
    case AttemptOutcome::kDeadline:
      return "deadline";
    case AttemptOutcome::kPaused:
      return "paused";
  }
  return "unknown";
}

bool IsTimed(absl::string_view method) {
  return method != "WatchJob" && method != "ReadLogs" && method != "AcquireLease";
}

void MetricFamilies::AddZerosOfPhases() {
  for (int number = v1::PHASE_UNSPECIFIED; number <= v1::PHASE_PUBLISHING; ++number) {
    const std::string phase = PhaseLabel(static_cast<v1::Phase>(number));
    for (const char* outcome : kOutcomeLabels)
      attempts_finished.Add({{"outcome", outcome}, {"phase", phase}});
    if (number == v1::PHASE_UNSPECIFIED) continue;
    phase_duration.Add({{"phase", phase}}, kPhaseSeconds);
    phase_resumed.Add({{"phase", phase}});
    tokens.Add({{"phase", phase}});
  }
}

void MetricFamilies::AddZerosOfRpcs(const google::protobuf::ServiceDescriptor& service) {
  for (int i = 0; i < service.method_count(); ++i) {
    const std::string& method = service.method(i)->name();
    std::map<std::string, std::string> labels = {{"grpc_service", service.full_name()},
                                                 {"grpc_method", method}};
    rpc_started.Add(labels);
    if (IsTimed(method)) rpc_seconds.Add(labels, kRpcSeconds);
    labels["grpc_code"] = "OK";
    rpc_handled.Add(labels);
  }
}

MetricFamilies::MetricFamilies() {
  AddZerosOfPhases();
  for (const char* reason : kSubmitReasons) rejected.Add({{"reason", reason}});
  for (const char* reason : kFailureReasons)
    jobs_finished.Add({{"result", "failed"}, {"reason", reason}});
  for (const char* result : {"succeeded", "cancelled"})
    jobs_finished.Add({{"result", result}, {"reason", ""}});
  for (const char* result : {"succeeded", "cancelled", "failed"})
    job_duration.Add({{"result", result}}, kJobSeconds);
  for (const char* operation : {"heartbeat", "report", "complete", "logs"})
    fenced.Add({{"operation", operation}});
  for (const char* reason : {"finished", "CANCELLED", kDraining, kSequenceCompacted,
                             "SLOW_CONSUMER", "TOO_MANY_WATCHES", kJobNotFound})
    watch_closed.Add({{"reason", reason}});
  for (const char* reason : {"CREDENTIALS_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED",
                             "CERTIFICATE_NOT_KNOWN", "SIGNING_KEYS_MISSING", "ROLE_NOT_ALLOWED"})
    auth_failures.Add({{"reason", reason}});
  for (const char* type : {"snapshot", "event", "lines", "bookmark"})
    watch_sent.Add({{"type", type}});
  AddZerosOfRpcs(*v1::CreateJobRequest::descriptor()->file()->service(0));
  AddZerosOfRpcs(*v1::AcquireLeaseRequest::descriptor()->file()->service(0));
}

}  // namespace latentforge::service
