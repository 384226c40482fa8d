#include "service/store/store.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/enum_text.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

absl::Status QuotaError(absl::string_view reason, absl::string_view tenant,
                        const std::string& message, int64_t used, int64_t limit) {
  return WithQuotaFailure(MakeError(absl::StatusCode::kResourceExhausted, reason, message,
                                    {{"tenant", std::string(tenant)},
                                     {"limit", absl::StrCat(limit)},
                                     {"used", absl::StrCat(used)}}),
                          absl::StrCat("tenants/", tenant), message);
}

}  // namespace

absl::Status JobNotFoundError(absl::string_view id) {
  return MakeError(absl::StatusCode::kNotFound, kJobNotFound,
                   absl::StrCat("there is no job jobs/", id), {{"job", std::string(id)}});
}

absl::Status ConcurrentTransitionError(absl::string_view id, int64_t expected_version) {
  return WithRetryDelay(MakeError(absl::StatusCode::kAborted, kConcurrentTransition,
                                  absl::StrCat("job ", id, " changed meanwhile: version ",
                                               expected_version, " is not its version any more"),
                                  {{"job", std::string(id)}}),
                        absl::Milliseconds(100));
}

absl::Status OutputInUseError(absl::string_view output_path, absl::string_view id,
                              v1::JobState state) {
  if (id.empty()) {
    return MakeFieldError(
        kOutputInUse,
        {{"spec.output.uri",
          absl::StrCat("is ", output_path, ", which another job writes, expected another folder")}},
        {{"output", std::string(output_path)}}, absl::StatusCode::kAlreadyExists);
  }
  return MakeFieldError(
      kOutputInUse,
      {{"spec.output.uri", absl::StrCat("is ", output_path, ", which jobs/", id, " writes (",
                                        ShortEnumName(state), "), expected another folder")}},
      {{"output", std::string(output_path)}, {"job", std::string(id)}},
      absl::StatusCode::kAlreadyExists);
}

absl::Status RequestIdTakenError(absl::string_view request_id) {
  return MakeError(absl::StatusCode::kAlreadyExists, kRequestIdReused,
                   absl::StrCat("request_id ", request_id, " was used before"),
                   {{"request_id", std::string(request_id)}});
}

absl::Status CheckQueueQuota(absl::string_view tenant, const TenantUse& use, int64_t max_jobs) {
  if (max_jobs == 0 || use.waiting() < max_jobs) return absl::OkStatus();
  return QuotaError(kQuotaQueuedJobs, tenant,
                    absl::StrCat("tenant ", tenant, " has ", use.queued, " queued and ", use.paused,
                                 " paused jobs, expected at most ", max_jobs, " together"),
                    use.waiting(), max_jobs);
}

absl::Status CheckKindQuota(absl::string_view tenant, const std::vector<std::string>& waiting,
                            const std::string& needs, int64_t max_kinds) {
  const auto others = std::count_if(waiting.begin(), waiting.end(),
                                    [&needs](const std::string& other) { return other != needs; });
  if (max_kinds == 0 || others < max_kinds) return absl::OkStatus();
  return QuotaError(kQuotaQueuedKinds, tenant,
                    absl::StrCat("tenant ", tenant, " has jobs waiting that need ", others,
                                 " different things of a worker (device, memory, labels), and this "
                                 "one needs another, expected at most ",
                                 max_kinds, " together"),
                    others, max_kinds);
}

}  // namespace latentforge::service
