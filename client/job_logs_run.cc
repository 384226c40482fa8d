// RunLogs; the rest of job_run.h is in job_run.cc.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "client/connection_notice.h"
#include "client/conversion_client.h"
#include "client/error.h"
#include "client/interrupt.h"
#include "client/job_run.h"
#include "client/log_follow.h"
#include "client/output.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

// Lines on standard output; on the terminal, what is to be known about them.
class LogPrinter {
 public:
  LogPrinter(Terminal& terminal, bool json) : terminal_(terminal), json_(json) {}

  absl::Status Print(const v1::ReadLogsResponse& message) {
    std::string text;
    for (const v1::LogEntry& entry : message.entries()) {
      if (json_) {
        LF_ASSIGN_OR_RETURN(const std::string line, ToJson(entry, true));
        text += line;
        continue;
      }
      if (entry.attempt() != attempt_ || entry.dropped() > 0) {
        // What belongs above is there before.
        LF_RETURN_IF_ERROR(PrintOutput(text));
        text.clear();
        Explain(entry);
      }
      absl::StrAppend(&text, FormatTime(entry.time()), "  ",
                      Printable(absl::StrReplaceAll(entry.text(), {{"\t", "    "}})), "\n");
    }
    return PrintOutput(text);
  }

 private:
  void Explain(const v1::LogEntry& entry) {
    if (entry.attempt() != attempt_) {
      attempt_ = entry.attempt();
      terminal_.Write(absl::StrCat("attempt ", attempt_, "\n"));
    }
    if (entry.dropped() > 0)
      terminal_.Write(absl::StrCat(entry.dropped(), " lines are missing here\n"));
  }

  Terminal& terminal_;
  const bool json_;
  int32_t attempt_ = 0;
};

absl::StatusOr<v1::ReadLogsRequest> LogsRequest(const LogsOptions& options) {
  v1::ReadLogsRequest request;
  request.set_name(JobName(options.job));
  if (options.attempt.has_value())
    absl::StrAppend(request.mutable_name(), "/attempts/", *options.attempt);
  request.set_tail(options.tail);
  request.set_follow(options.follow);
  return request;
}

}  // namespace

absl::Status RunLogs(const LogsOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.server.output));
  if (format != OutputFormat::kTable && format != OutputFormat::kJsonLines) {
    return absl::InvalidArgumentError(
        absl::StrCat("--output is \"", options.server.output, "\", expected table or jsonl"));
  }
  LF_ASSIGN_OR_RETURN(const v1::ReadLogsRequest request, LogsRequest(options));
  LF_ASSIGN_OR_RETURN(const ServerTarget server, FindServer(options.server, context));
  ConversionClient client(server.channel, server.address, context.clock);
  LogPrinter printer(context.terminal, format == OutputFormat::kJsonLines);
  LogFollowOptions follow;
  follow.interrupted = Interrupted;
  ConnectionNotice connection;
  const auto say = [&context](const std::optional<std::string>& line) {
    if (line.has_value()) context.terminal.Write(absl::StrCat(*line, "\n"));
  };
  follow.on_lost = [&](const absl::Status& status) { say(connection.Lost(status)); };
  const absl::Status ended =
      FollowLogs(client, context.clock, request, follow, [&](const v1::ReadLogsResponse& message) {
        say(connection.Made());
        return printer.Print(message);
      });
  if (!absl::IsCancelled(ended) || !Interrupted()) return ended;
  return WithExitCode(absl::CancelledError("stopped reading"), kExitInterrupted);
}

}  // namespace latentforge::client
