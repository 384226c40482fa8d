#include "worker/convert/error_reason.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"

namespace latentforge::convert {
namespace {

constexpr char kPayload[] = "latentforge/reason";

struct Row {
  const char* reason;
  ErrorClass error_class;
  bool retryable;
};

// docs/convert.md lists them for users.
constexpr Row kTable[] = {
    {"INVALID_SPEC", ErrorClass::kUser, false},
    {"METHOD_NOT_SUPPORTED", ErrorClass::kUser, false},
    {"RANK_OUT_OF_RANGE", ErrorClass::kUser, false},
    {"SOURCE_NOT_READABLE", ErrorClass::kUser, false},
    {"UNSUPPORTED_ARCHITECTURE", ErrorClass::kUser, false},
    {"ALREADY_CONVERTED", ErrorClass::kUser, false},
    {"MALFORMED_CHECKPOINT", ErrorClass::kUser, false},
    {"MALFORMED_CONFIG", ErrorClass::kUser, false},
    {"MALFORMED_SAFETENSORS", ErrorClass::kUser, false},
    {"MALFORMED_TOKENIZER", ErrorClass::kUser, false},
    {"SOURCE_CORRUPT", ErrorClass::kUser, false},
    {"CORPUS_NOT_READABLE", ErrorClass::kUser, false},
    {"MALFORMED_CORPUS", ErrorClass::kUser, false},
    {"TOO_FEW_TOKENS", ErrorClass::kUser, false},
    {"OUTPUT_NOT_EMPTY", ErrorClass::kUser, false},
    {"QUALITY_GATE_FAILED", ErrorClass::kUser, false},
    {"OUTPUT_NOT_WRITABLE", ErrorClass::kUser, false},
    {"DEVICE_UNAVAILABLE", ErrorClass::kUser, false},
    {"SCRATCH_FULL", ErrorClass::kResource, true},
    {"OUTPUT_DISK_FULL", ErrorClass::kResource, true},
    {"OUT_OF_MEMORY", ErrorClass::kResource, true},
    {"WORK_DIR_IN_USE", ErrorClass::kSystem, true},
    {"SCRATCH_NOT_WRITABLE", ErrorClass::kSystem, true},
    {"CHECKPOINT_CORRUPT", ErrorClass::kSystem, true},
    {"ARTIFACT_CORRUPT", ErrorClass::kSystem, true},
    {"LEASE_LOST", ErrorClass::kSystem, true},
    {"NUMERICAL_FAILURE", ErrorClass::kSystem, false},
    {"INTERNAL", ErrorClass::kSystem, true},
};

std::string DefaultReason(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return "INVALID_SPEC";
    case absl::StatusCode::kResourceExhausted:
      return absl::StrContains(status.message(), "memory") ? "OUT_OF_MEMORY" : "SCRATCH_FULL";
    default:
      return "INTERNAL";
  }
}

}  // namespace

absl::Status WithReason(absl::Status status, absl::string_view reason) {
  if (!status.ok() && !status.GetPayload(kPayload)) {
    status.SetPayload(kPayload, absl::Cord(reason));
  }
  return status;
}

absl::Status WithReasonByCode(absl::Status status, std::initializer_list<CodeReason> reasons) {
  for (const CodeReason& entry : reasons) {
    if (status.code() == entry.code) return WithReason(std::move(status), entry.reason);
  }
  return status;
}

ErrorInfo DescribeError(const absl::Status& status) {
  ErrorInfo info;
  const auto payload = status.GetPayload(kPayload);
  info.reason = payload ? std::string(*payload) : DefaultReason(status);
  for (const Row& row : kTable) {
    if (info.reason == row.reason) {
      info.error_class = row.error_class;
      info.retryable = row.retryable;
    }
  }
  return info;
}

int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  if (absl::IsCancelled(status)) return 5;
  switch (DescribeError(status).error_class) {
    case ErrorClass::kUser:
      return 1;
    case ErrorClass::kResource:
      return 4;
    case ErrorClass::kSystem:
      break;
  }
  return 3;
}

}  // namespace latentforge::convert
