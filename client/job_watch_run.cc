// RunWatch and what it needs; the rest of job_run.h is in job_run.cc.
#include <sys/random.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "client/conversion_client.h"
#include "client/error.h"
#include "client/follow_job.h"
#include "client/interrupt.h"
#include "client/job_run.h"
#include "client/output.h"
#include "client/program_name.h"
#include "client/progress_text.h"
#include "client/queue_hint.h"
#include "client/result_table.h"

namespace latentforge::client {
namespace {

absl::StatusOr<absl::Duration> Timeout(const WaitOptions& options) {
  if (!options.timeout.has_value()) return absl::InfiniteDuration();
  absl::Duration timeout;
  if (!absl::ParseDuration(*options.timeout, &timeout) || timeout < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--timeout is \"", *options.timeout, "\", expected a time span such as 90s or 2h30m"));
  }
  return timeout;
}

// {"snapshot": ...} first, then {"event": ...}, one a line.
absl::Status PrintMessage(const v1::WatchJobResponse& message) {
  LF_ASSIGN_OR_RETURN(const std::string line, ToJson(message, true));
  return PrintOutput(line);
}

// The job goes on: why we stop watching, and how to watch again.
absl::Status Detached(const FollowResult& result, const std::string& job,
                      const std::string& address) {
  const bool late = result.end == FollowEnd::kTimedOut;
  const std::string state = result.job.name().empty()
                                ? absl::StrCat("server ", address, " has not answered")
                                : absl::StrCat(job, " is ", StateText(result.job.status().state()));
  const std::string message =
      absl::StrCat(late ? "the time to wait is over; " : "stopped watching; ", state);
  const absl::Status status =
      late ? WithExitCode(absl::DeadlineExceededError(message), kExitWaitTimedOut)
           : WithExitCode(absl::CancelledError(message), kExitInterrupted);
  return WithNextStep(
      status, absl::StrCat("latentforge job watch ", job, " --server ", ShellWord(address)));
}

// Says once, each time that the job is paused, how it goes on.
class PauseHint {
 public:
  explicit PauseHint(std::string command) : command_(std::move(command)) {}

  std::optional<std::string> Next(const v1::Job& job) {
    const bool paused = job.status().state() == v1::JOB_STATE_PAUSED;
    if (std::exchange(paused_, paused) || !paused) return std::nullopt;
    return absl::StrCat("it goes on with: ", command_);
  }

 private:
  const std::string command_;
  bool paused_ = false;
};

}  // namespace

absl::Status RunWatch(const WatchJobOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.server.output));
  FollowOptions follow;
  LF_ASSIGN_OR_RETURN(follow.timeout, Timeout(options.waiting));
  follow.after = options.from_sequence;
  follow.interrupted = Interrupted;
  const bool events = format == OutputFormat::kJsonLines;
  absl::Status printed;
  if (events) {
    follow.on_message = [&](const v1::WatchJobResponse& message) {
      printed.Update(PrintMessage(message));
    };
    follow.check = [&] { return printed; };
  }
  LF_ASSIGN_OR_RETURN(const ServerTarget server, FindServer(options.server, context));
  ConversionClient client(server.channel, server.address, context.clock);
  const std::string name = JobName(options.job);
  QueueHint hint(server.address, context.clock, [&] { return client.GetJob(name); });
  PauseHint pause(WithProgram(
      absl::StrCat("latentforge job resume ", name, " --server ", ShellWord(server.address)),
      context.program));
  follow.notice = [&](const v1::Job& job) {
    std::optional<std::string> line = pause.Next(job);
    return line.has_value() ? line : hint.Next(job);
  };
  const std::unique_ptr<ProgressView> view =
      events ? std::make_unique<SilentView>() : MakeProgressView(context.terminal, context.clock);
  const absl::StatusOr<FollowResult> result = FollowJob(client, context.clock, name, *view, follow);
  view->Finish();
  LF_RETURN_IF_ERROR(printed);
  if (!result.ok()) return result.status();
  if (result->end != FollowEnd::kJobEnded) return Detached(*result, name, server.address);
  LF_RETURN_IF_ERROR(JobOutcome(result->job));
  if (events) return absl::OkStatus();
  if (format == OutputFormat::kTable)
    return PrintOutput(ResultTable(result->job.status().result(), result->job.spec()));
  LF_ASSIGN_OR_RETURN(const std::string text, RenderJob(result->job, format));
  return PrintOutput(text);
}

absl::StatusOr<std::string> NewRequestId() {
  uint8_t bytes[16];
  if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes)) {
    return absl::InternalError("the system gave no random bytes");
  }
  bytes[6] = static_cast<uint8_t>((bytes[6] & 0x0F) | 0x40);  // version 4
  bytes[8] = static_cast<uint8_t>((bytes[8] & 0x3F) | 0x80);  // RFC 4122 variant
  std::string id;
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) id += '-';
    absl::StrAppendFormat(&id, "%02x", bytes[i]);
  }
  return id;
}

}  // namespace latentforge::client
