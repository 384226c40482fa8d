#include "client/error.h"

#include <optional>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "client/advice.h"

namespace latentforge::client {
namespace {

constexpr char kReasonUrl[] = "latentforge.client/reason";
constexpr char kNextStepUrl[] = "latentforge.client/next-step";
constexpr char kExitCodeUrl[] = "latentforge.client/exit-code";
constexpr char kViolationsUrl[] = "latentforge.client/violations";

absl::Status With(absl::Status status, const char* url, absl::string_view value) {
  if (!status.ok() && !value.empty()) status.SetPayload(url, absl::Cord(value));
  return status;
}

std::string PayloadOf(const absl::Status& status, const char* url) {
  const absl::optional<absl::Cord> payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

// The exit code that a reason of the server has although its status says another.
std::optional<ExitCode> ExitCodeOfReason(absl::string_view reason) {
  if (reason == "SOURCE_NOT_READABLE" || reason == "CORPUS_NOT_READABLE") return kExitNotFound;
  if (reason == "OUTPUT_NOT_EMPTY") return kExitConflict;
  if (reason == "UNSUPPORTED_ARCHITECTURE" || reason == "METHOD_NOT_SUPPORTED") return kExitUsage;
  return std::nullopt;
}

// Where nobody gave one.
std::string GeneralReason(const absl::Status& status) {
  switch (ExitCodeOf(status)) {
    case kExitUsage:
      return "USAGE";
    case kExitWaitTimedOut:
      return "WAIT_TIMED_OUT";
    case kExitInterrupted:
      return "INTERRUPTED";
    case kExitJobCancelled:
      return "JOB_CANCELLED";
    default:
      return absl::StatusCodeToString(status.code());
  }
}

std::string ReasonOrGeneral(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason.empty() ? GeneralReason(status) : reason;
}

// "--kv-budget is 2, expected ...", "--out: /a exists and is not empty".
std::string ViolationText(const FieldViolation& violation) {
  const bool goes_on = absl::StartsWith(violation.description, "is ") ||
                       absl::StartsWith(violation.description, "has ");
  return absl::StrCat(FlagOfField(violation.field), goes_on ? " " : ": ",
                      WithFlagNames(violation.description));
}

}  // namespace

absl::Status WithReason(absl::Status status, absl::string_view reason) {
  return With(std::move(status), kReasonUrl, reason);
}

absl::Status WithNextStep(absl::Status status, absl::string_view next_step) {
  return With(std::move(status), kNextStepUrl, next_step);
}

absl::Status WithViolations(absl::Status status, const std::vector<FieldViolation>& violations) {
  Json list = Json::array();
  for (const FieldViolation& violation : violations) {
    list.push_back({{"field", violation.field}, {"description", violation.description}});
  }
  if (list.empty()) return status;
  return With(std::move(status), kViolationsUrl, WriteJson(list));
}

absl::Status WithExitCode(absl::Status status, ExitCode code) {
  return With(std::move(status), kExitCodeUrl, absl::StrCat(static_cast<int>(code)));
}

int ExitCodeOf(const absl::Status& status) {
  int code = 0;
  if (absl::SimpleAtoi(PayloadOf(status, kExitCodeUrl), &code)) return code;
  return ExitCodeOfReason(ReasonOf(status)).value_or(ExitCodeForStatus(status));
}

std::string ReasonOf(const absl::Status& status) { return PayloadOf(status, kReasonUrl); }

std::string NextStepOf(const absl::Status& status) {
  if (status.ok()) return "";
  const std::string next = PayloadOf(status, kNextStepUrl);
  if (!next.empty()) return next;
  const std::string advice = AdviceOn(ReasonOrGeneral(status));
  return advice.empty() ? AdviceOn(status.code()) : advice;
}

std::vector<FieldViolation> ViolationsOf(const absl::Status& status) {
  std::vector<FieldViolation> violations;
  const std::string payload = PayloadOf(status, kViolationsUrl);
  if (payload.empty()) return violations;
  const absl::StatusOr<Json> list = ParseJson(payload);
  if (!list.ok() || !list->is_array()) return violations;
  for (const Json& item : *list) {
    violations.push_back({item.value("field", ""), item.value("description", "")});
  }
  return violations;
}

// The server's message repeats the violations, under the names of the API.
std::string RenderErrorText(const absl::Status& status) {
  const std::vector<FieldViolation> violations = ViolationsOf(status);
  const std::string message = violations.empty() ? std::string(status.message())
                              : violations.size() == 1
                                  ? ViolationText(violations[0])
                                  : absl::StrCat(violations.size(), " settings are wrong");
  std::string text = absl::StrCat("error: ", message, " [", ReasonOrGeneral(status), "]\n");
  if (violations.size() > 1) {
    for (const FieldViolation& violation : violations) {
      absl::StrAppend(&text, "  ", ViolationText(violation), "\n");
    }
  }
  if (const std::string next = NextStepOf(status); !next.empty()) {
    absl::StrAppend(&text, "next: ", next, "\n");
  }
  return text;
}

std::string RenderErrorJson(const absl::Status& status) {
  Json error = {{"code", absl::StatusCodeToString(status.code())},
                {"message", std::string(status.message())},
                {"exitCode", ExitCodeOf(status)}};
  error["reason"] = ReasonOrGeneral(status);
  if (const std::string next = NextStepOf(status); !next.empty()) error["nextStep"] = next;
  Json violations = Json::array();
  for (const FieldViolation& violation : ViolationsOf(status)) {
    violations.push_back({{"field", violation.field}, {"description", violation.description}});
  }
  if (!violations.empty()) error["fieldViolations"] = violations;
  return absl::StrCat(WriteJson({{"error", error}}), "\n");
}

}  // namespace latentforge::client
