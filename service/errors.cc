#include "service/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/json.h"
#include "google/rpc/error_details.pb.h"

namespace latentforge::service {
namespace {

constexpr char kTypePrefix[] = "type.googleapis.com/";

std::string TypeUrl(const google::protobuf::Message& message) {
  return absl::StrCat(kTypePrefix, message.GetDescriptor()->full_name());
}

// A message with a string that is not UTF-8 cannot be read by anybody, and what is quoted may be
// any bytes, or be cut within a character.
std::string Utf8(absl::string_view text) {
  const absl::StatusOr<Json> readable = ParseJson(WriteJson(Json(std::string(text))));
  return readable.ok() ? readable->get<std::string>() : absl::CHexEscape(text);
}

void Attach(absl::Status& status, const google::protobuf::Message& detail) {
  status.SetPayload(TypeUrl(detail), absl::Cord(detail.SerializeAsString()));
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message,
                       const std::map<std::string, std::string>& metadata) {
  absl::Status status(code, Utf8(message));
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kErrorDomain);
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[key] = Utf8(value);
  Attach(status, info);
  return status;
}

absl::Status MakeFieldError(absl::string_view reason, const std::vector<FieldViolation>& violations,
                            const std::map<std::string, std::string>& metadata,
                            absl::StatusCode code) {
  google::rpc::BadRequest request;
  for (const FieldViolation& violation : violations) {
    auto* added = request.add_field_violations();
    added->set_field(Utf8(violation.field));
    added->set_description(Utf8(violation.description));
  }
  const std::string message =
      absl::StrJoin(violations, "; ", [](std::string* out, const FieldViolation& violation) {
        const bool goes_on = absl::StartsWith(violation.description, "is ") ||
                             absl::StartsWith(violation.description, "has ");
        absl::StrAppend(out, violation.field, goes_on ? " " : ": ", violation.description);
      });
  std::map<std::string, std::string> all = metadata;
  if (!violations.empty()) all.emplace("field", violations.front().field);
  absl::Status status = MakeError(code, reason, message, all);
  Attach(status, request);
  return status;
}

absl::Status WithRetryDelay(absl::Status status, absl::Duration delay) {
  google::rpc::RetryInfo info;
  const int64_t nanos = absl::ToInt64Nanoseconds(delay);
  info.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
  info.mutable_retry_delay()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  Attach(status, info);
  return status;
}

absl::Status WithQuotaFailure(absl::Status status, absl::string_view subject,
                              absl::string_view description) {
  google::rpc::QuotaFailure failure;
  auto* violation = failure.add_violations();
  violation->set_subject(std::string(subject));
  violation->set_description(std::string(description));
  Attach(status, failure);
  return status;
}

std::string ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(TypeUrl(google::rpc::ErrorInfo::default_instance()));
  google::rpc::ErrorInfo info;
  if (payload.has_value() && info.ParseFromString(std::string(*payload))) return info.reason();
  return absl::StatusCodeToString(status.code());
}

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  absl::Status complete = status;
  const std::string info_url = TypeUrl(google::rpc::ErrorInfo::default_instance());
  if (!status.ok() && !status.GetPayload(info_url).has_value()) {
    google::rpc::ErrorInfo info;
    info.set_reason(ReasonOf(status));
    info.set_domain(kErrorDomain);
    Attach(complete, info);
  }
  google::rpc::Status rpc;
  rpc.set_code(static_cast<int>(status.code()));
  rpc.set_message(Utf8(status.message()));
  complete.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    auto* any = rpc.add_details();
    any->set_type_url(std::string(url));
    any->set_value(std::string(payload));
  });
  return rpc;
}

}  // namespace latentforge::service
