#include "service/attempts.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/job_name.h"
#include "service/paging.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

v1::AttemptOutcome OutcomeOf(AttemptOutcome outcome) {
  switch (outcome) {
    case AttemptOutcome::kRunning:
      return v1::ATTEMPT_OUTCOME_RUNNING;
    case AttemptOutcome::kSucceeded:
      return v1::ATTEMPT_OUTCOME_SUCCEEDED;
    case AttemptOutcome::kFailed:
      return v1::ATTEMPT_OUTCOME_FAILED;
    case AttemptOutcome::kCancelled:
      return v1::ATTEMPT_OUTCOME_CANCELLED;
    case AttemptOutcome::kReleased:
      return v1::ATTEMPT_OUTCOME_RELEASED;
    case AttemptOutcome::kLeaseExpired:
      return v1::ATTEMPT_OUTCOME_LEASE_EXPIRED;
    case AttemptOutcome::kDeadline:
      return v1::ATTEMPT_OUTCOME_DEADLINE;
    case AttemptOutcome::kPaused:
      return v1::ATTEMPT_OUTCOME_PAUSED;
  }
  return v1::ATTEMPT_OUTCOME_UNSPECIFIED;
}

v1::Attempt MessageOf(const std::string& job_id, const AttemptRecord& record) {
  v1::Attempt attempt;
  attempt.set_name(AttemptName(job_id, record.number));
  attempt.set_worker(record.worker);
  *attempt.mutable_start_time() = ToProto(record.start_time);
  if (record.outcome != AttemptOutcome::kRunning)
    *attempt.mutable_end_time() = ToProto(record.end_time);
  attempt.set_outcome(OutcomeOf(record.outcome));
  if (!record.error.reason().empty()) *attempt.mutable_error() = record.error;
  attempt.mutable_phases()->Assign(record.phases.begin(), record.phases.end());
  return attempt;
}

}  // namespace

absl::Status AttemptNotFoundError(absl::string_view name) {
  return MakeError(absl::StatusCode::kNotFound, "ATTEMPT_NOT_FOUND",
                   absl::StrCat("there is no attempt ", name), {{"attempt", std::string(name)}});
}

absl::Status Attempts::CheckVisible(const Identity& caller, const std::string& job) {
  LF_ASSIGN_OR_RETURN(const JobRecord record, store_.Get(job));
  return caller.Sees(record.tenant) ? absl::OkStatus() : JobNotFoundError(job);
}

absl::StatusOr<v1::GetAttemptResponse> Attempts::Get(const Identity& caller,
                                                     const v1::GetAttemptRequest& request) {
  LF_ASSIGN_OR_RETURN(const AttemptId id, ParseAttemptName(request.name()));
  LF_RETURN_IF_ERROR(CheckVisible(caller, id.job));
  LF_ASSIGN_OR_RETURN(const std::vector<AttemptRecord> found,
                      store_.Attempts(id.job, id.number - 1, 1));
  if (found.empty() || found.front().number != id.number)
    return AttemptNotFoundError(request.name());
  v1::GetAttemptResponse response;
  *response.mutable_attempt() = MessageOf(id.job, found.front());
  return response;
}

absl::StatusOr<v1::ListAttemptsResponse> Attempts::List(const Identity& caller,
                                                        const v1::ListAttemptsRequest& request) {
  LF_ASSIGN_OR_RETURN(const std::string id, ParseJobName(request.parent(), "parent"));
  LF_RETURN_IF_ERROR(CheckVisible(caller, id));
  LF_ASSIGN_OR_RETURN(const int page_size, EffectivePageSize(request.page_size()));
  const std::string binding = absl::StrCat("attempts:", id);
  int32_t after = 0;
  if (!request.page_token().empty()) {
    LF_ASSIGN_OR_RETURN(const std::string position, tokens_.Decode(request.page_token(), binding));
    if (!absl::SimpleAtoi(position, &after))
      return absl::InternalError("a signed page token holds no attempt");
  }
  // One more tells whether a page follows.
  LF_ASSIGN_OR_RETURN(const std::vector<AttemptRecord> records,
                      store_.Attempts(id, after, page_size + 1));
  v1::ListAttemptsResponse response;
  const size_t shown = std::min<size_t>(records.size(), page_size);
  for (size_t i = 0; i < shown; ++i) *response.add_attempts() = MessageOf(id, records[i]);
  if (records.size() > shown)
    response.set_next_page_token(tokens_.Encode(absl::StrCat(records[shown - 1].number), binding));
  return response;
}

}  // namespace latentforge::service
