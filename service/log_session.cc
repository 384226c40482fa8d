#include "service/log_session.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/attempts.h"
#include "service/errors.h"
#include "service/job_name.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

constexpr int32_t kMaxTail = 1'000'000;

absl::Status CheckReadLogs(const v1::ReadLogsRequest& request, bool whole_job) {
  std::vector<FieldViolation> violations;
  if (request.tail() < 0 || request.tail() > kMaxTail)
    violations.push_back(
        {"tail", absl::StrCat("is ", request.tail(), ", expected 0 to ", kMaxTail)});
  if (request.from_attempt() < 0 || (request.from_attempt() > 0 && !whole_job))
    violations.push_back({"from_attempt", absl::StrCat("is ", request.from_attempt(),
                                                       ", expected 0, or 1 or more with the name "
                                                       "of a job")});
  if (request.has_from_sequence()) {
    const bool names_attempt = !whole_job || request.from_attempt() > 0;
    if (request.from_sequence() < 0 || request.tail() > 0 || !names_attempt)
      violations.push_back({"from_sequence", absl::StrCat("is ", request.from_sequence(),
                                                          ", expected 0 or more with an attempt, "
                                                          "and without tail")});
  }
  return violations.empty() ? absl::OkStatus() : MakeFieldError(kInvalidField, violations);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LogSession>> LogSession::Start(const Identity& caller, Store& store,
                                                              LogLooks& looks,
                                                              const v1::ReadLogsRequest& request) {
  std::unique_ptr<LogSession> session(new LogSession(store, looks));
  session->whole_job_ = !absl::StrContains(request.name(), "/attempts/");
  session->follow_ = request.follow();
  if (session->whole_job_) {
    LF_ASSIGN_OR_RETURN(session->id_, ParseJobName(request.name()));
  } else {
    LF_ASSIGN_OR_RETURN(AttemptId attempt, ParseAttemptName(request.name()));
    session->id_ = std::move(attempt.job);
    session->attempt_ = attempt.number;
  }
  LF_RETURN_IF_ERROR(CheckReadLogs(request, session->whole_job_));
  LF_ASSIGN_OR_RETURN(const JobRecord record, store.Get(session->id_));
  if (!caller.Sees(record.tenant)) return JobNotFoundError(session->id_);
  LF_RETURN_IF_ERROR(session->ChooseStart(request, record));
  return session;
}

absl::Status LogSession::ChooseStart(const v1::ReadLogsRequest& request, const JobRecord& record) {
  const int32_t last = record.job.status().attempt();
  if (!whole_job_ && attempt_ > last) return AttemptNotFoundError(request.name());
  if (whole_job_ && request.from_attempt() > 0) attempt_ = request.from_attempt();
  if (attempt_ == 0 && request.tail() > 0) attempt_ = last;
  if (request.has_from_sequence()) cursor_ = request.from_sequence();
  if (request.tail() == 0) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(cursor_, store_.LogTail(id_, attempt_, request.tail()));
  return absl::OkStatus();
}

bool LogSession::Advance(const LogLook& look) {
  if (whole_job_ && (look.ended || !follow_) && look.next_attempt > 0) {
    attempt_ = look.next_attempt;
    cursor_ = 0;
    return true;
  }
  finished_ = !follow_ || (look.ended && (!whole_job_ || look.job_ended));
  return false;
}

v1::ReadLogsResponse LogSession::Take(const std::vector<LogRecord>& lines) {
  v1::ReadLogsResponse response;
  for (const LogRecord& line : lines) {
    v1::LogEntry& entry = *response.add_entries();
    entry.set_attempt(attempt_);
    entry.set_sequence(line.sequence);
    *entry.mutable_time() = ToProto(line.time);
    entry.set_text(line.text);
    entry.set_dropped(line.sequence - cursor_ - 1);
    cursor_ = line.sequence;
  }
  return response;
}

absl::StatusOr<std::optional<v1::ReadLogsResponse>> LogSession::Next() {
  while (!finished_) {
    const LogPlace place = {.job = id_, .attempt = attempt_, .after = cursor_};
    LF_ASSIGN_OR_RETURN(const std::shared_ptr<const LogLook> look,
                        follow_ ? looks_.Share(place) : looks_.Read(place));
    if (!look->lines.empty()) return Take(look->lines);
    if (!Advance(*look)) break;
  }
  return std::nullopt;
}

}  // namespace latentforge::service
