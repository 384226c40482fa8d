#include "service/request_checks.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/needs.h"

namespace latentforge::service {
namespace {

constexpr int kMaxLabels = 64;
constexpr size_t kMaxLabelBytes = 63;
constexpr size_t kMaxNameBytes = 128;
constexpr int kMaxDevices = 64;

absl::Status Result(const std::vector<FieldViolation>& violations) {
  return violations.empty() ? absl::OkStatus() : MakeFieldError(kInvalidField, violations);
}

// "0.1" of "0.1.0".
std::string MinorVersion(absl::string_view version) {
  const std::vector<absl::string_view> parts = absl::StrSplit(version, '.');
  return parts.size() < 2 ? std::string(version) : absl::StrCat(parts[0], ".", parts[1]);
}

}  // namespace

absl::Status CheckCreateRequest(const v1::CreateJobRequest& request) {
  std::vector<FieldViolation> violations;
  if (request.request_id().size() > 64)
    violations.push_back({"request_id", absl::StrCat("has ", request.request_id().size(),
                                                     " bytes, expected at most 64")});
  if (request.labels_size() > kMaxLabels)
    violations.push_back({"labels", absl::StrCat("has ", request.labels_size(),
                                                 " entries, expected at most ", kMaxLabels)});
  // Thousands need no check each.
  if (request.labels_size() > kMaxLabels) return Result(violations);
  for (const auto& [key, value] : request.labels()) {
    if (key.empty() || key.size() > kMaxLabelBytes)
      violations.push_back({"labels", absl::StrCat("has a key of ", key.size(), " bytes, \"",
                                                   key.substr(0, 80), "\", expected 1 to 63")});
    if (value.size() > kMaxLabelBytes)
      violations.push_back({absl::StrCat("labels.", key.substr(0, 80)),
                            absl::StrCat("has a value of ", value.size(), " bytes for \"",
                                         key.substr(0, 80), "\", expected at most 63")});
  }
  return Result(violations);
}

absl::Status CheckFilter(const v1::JobFilter& filter) {
  std::vector<FieldViolation> violations;
  if (filter.states_size() > v1::JobState_ARRAYSIZE)
    violations.push_back(
        {"filter.states", absl::StrCat("has ", filter.states_size(), " entries, expected at most ",
                                       v1::JobState_ARRAYSIZE)});
  if (!violations.empty()) return Result(violations);  // thousands need no check each
  for (const int state : filter.states()) {
    if (state == v1::JOB_STATE_UNSPECIFIED || !v1::JobState_IsValid(state))
      violations.push_back({"filter.states", absl::StrCat("has the state ", state,
                                                          ", expected a number that has a name")});
  }
  if (filter.labels_size() > kMaxLabels)
    violations.push_back(
        {"filter.labels",
         absl::StrCat("has ", filter.labels_size(), " entries, expected at most ", kMaxLabels)});
  for (const auto& [key, value] : filter.labels()) {
    if (key.size() > kMaxLabelBytes || value.size() > kMaxLabelBytes)
      violations.push_back(
          {"filter.labels", absl::StrCat("has a key of ", key.size(), " bytes with a value of ",
                                         value.size(), ", expected at most 63 of each")});
  }
  if (filter.tenant().size() > kMaxNameBytes)
    violations.push_back(
        {"filter.tenant",
         absl::StrCat("has ", filter.tenant().size(), " bytes, expected at most ", kMaxNameBytes)});
  return Result(violations);
}

absl::Status CheckAcquireRequest(const v1::AcquireLeaseRequest& request,
                                 absl::string_view server_version) {
  const v1::WorkerInfo& worker = request.worker();
  std::vector<FieldViolation> violations;
  if (worker.name().empty() || worker.name().size() > kMaxNameBytes)
    violations.push_back({"worker.name", absl::StrCat("has ", worker.name().size(),
                                                      " bytes, expected 1 to ", kMaxNameBytes)});
  if (worker.instance().size() > kMaxNameBytes)
    violations.push_back(
        {"worker.instance", absl::StrCat("has ", worker.instance().size(),
                                         " bytes, expected at most ", kMaxNameBytes)});
  if (worker.slots() < 1 || worker.slots() > 1024)
    violations.push_back(
        {"worker.slots", absl::StrCat("is ", worker.slots(), ", expected 1 to 1024")});
  if (worker.devices_size() > kMaxDevices)
    violations.push_back(
        {"worker.devices",
         absl::StrCat("has ", worker.devices_size(), " entries, expected at most ", kMaxDevices)});
  if (worker.labels_size() > kMaxLabels)
    violations.push_back(
        {"worker.labels",
         absl::StrCat("has ", worker.labels_size(), " entries, expected at most ", kMaxLabels)});
  for (const auto& [key, value] : worker.labels()) {
    if (const std::string problem = LabelProblem(key, value); !problem.empty())
      violations.push_back({"worker.labels", problem});
  }
  if (request.wait().seconds() < 0 || request.wait().nanos() < 0)
    violations.push_back(
        {"wait", absl::StrCat("is ", request.wait().seconds(), " s, expected 0 or more")});
  LF_RETURN_IF_ERROR(Result(violations));
  if (MinorVersion(worker.version()) == MinorVersion(server_version)) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "VERSION_MISMATCH",
      absl::StrCat("worker ", worker.name(), " has version \"", worker.version().substr(0, 80),
                   "\", the server has ", server_version, "; the first two numbers must be equal"),
      {{"worker_version", worker.version().substr(0, 80)},
       {"server_version", std::string(server_version)}});
}

}  // namespace latentforge::service
