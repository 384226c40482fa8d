#include "service/log_intake.h"

#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/job_name.h"
#include "service/log_text.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

constexpr int kMaxLines = 1000;

absl::Status CheckLines(const v1::AppendLogsRequest& request) {
  if (request.lines_size() > kMaxLines) {
    return MakeFieldError(kInvalidField,
                          {{"lines", absl::StrCat("has ", request.lines_size(),
                                                  " entries, expected at most ", kMaxLines)}});
  }
  int64_t last = 0;
  for (const v1::AttemptLogLine& line : request.lines()) {
    if (line.sequence() <= last) {
      return MakeFieldError(kInvalidField,
                            {{"lines", absl::StrCat("sequence ", line.sequence(), " follows ", last,
                                                    "; expected a higher one")}});
    }
    last = line.sequence();
  }
  return absl::OkStatus();
}

LogAppend AppendOf(std::string job, const v1::AppendLogsRequest& request, const LogLimits& keep) {
  LogAppend append{.job = std::move(job), .attempt = request.lease().attempt(), .keep = keep};
  for (const v1::AttemptLogLine& line : request.lines())
    append.lines.push_back(
        {line.sequence(), FromProto(line.time()), LogText(line.text(), line.truncated())});
  return append;
}

}  // namespace

absl::StatusOr<std::string> LogIntake::CheckHeld(const Identity& caller, const v1::Lease& lease) {
  LF_ASSIGN_OR_RETURN(std::string id, ParseJobName(lease.job(), "lease.job"));
  const absl::StatusOr<JobRecord> record = engine_.store().Get(id);
  absl::Status held = record.status();
  if (record.ok())
    held = CheckLease(*record, {lease.attempt(), lease.lease_epoch(), caller.subject});
  if (absl::IsNotFound(held)) {
    held = MakeError(absl::StatusCode::kAborted, kLeaseLost,
                     absl::StrCat(lease.job(), " does not exist any more"), {{"job", id}});
  }
  if (IsFenced(held)) engine_.observer().FencedWrite("logs");
  LF_RETURN_IF_ERROR(held);
  return id;
}

absl::StatusOr<v1::AppendLogsResponse> LogIntake::Write(const Identity& caller,
                                                        const v1::AppendLogsRequest& request) {
  LF_ASSIGN_OR_RETURN(std::string id, CheckHeld(caller, request.lease()));
  LF_ASSIGN_OR_RETURN(const LogAppended appended,
                      engine_.store().AppendLogs(AppendOf(std::move(id), request, options_.keep)));
  engine_.observer().LogsAppended(appended);
  v1::AppendLogsResponse response;
  response.set_last_sequence(appended.last_sequence);
  return response;
}

absl::StatusOr<v1::AppendLogsResponse> LogIntake::Append(const Identity& caller,
                                                         const v1::AppendLogsRequest& request) {
  LF_RETURN_IF_ERROR(CheckLines(request));
  const bool busy = writing_.fetch_add(1) >= options_.writers;
  const absl::Cleanup done = [this] { writing_.fetch_sub(1); };
  if (!busy) return Write(caller, request);
  engine_.observer().LogsRefused();
  return WithRetryDelay(MakeError(absl::StatusCode::kResourceExhausted, "LOGS_BUSY",
                                  absl::StrCat("the server writes the logs of ", options_.writers,
                                               " other attempts at the moment")),
                        absl::Seconds(1));
}

}  // namespace latentforge::service
