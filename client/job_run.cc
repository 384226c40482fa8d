#include "client/job_run.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/conversion_client.h"
#include "client/error.h"
#include "client/field_text.h"
#include "client/output.h"
#include "client/progress_text.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

absl::StatusOr<v1::JobFilter> Filter(const ListJobsOptions& options) {
  v1::JobFilter filter;
  filter.set_tenant(options.tenant);
  for (const std::string& state : options.states) {
    LF_ASSIGN_OR_RETURN(const int value, ParseEnum(*v1::JobState_descriptor(), "--state", state));
    filter.add_states(static_cast<v1::JobState>(value));
  }
  for (const std::string& label : options.labels) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("--label is \"", label, "\", expected KEY=VALUE, such as team=search"));
    }
    const auto [found, inserted] =
        filter.mutable_labels()->insert({label.substr(0, equals), label.substr(equals + 1)});
    if (!inserted) {
      return absl::InvalidArgumentError(
          absl::StrCat("--label gives the key \"", found->first,
                       "\" twice, which no job matches, expected once"));
    }
  }
  return filter;
}

absl::Status CheckRequestId(const std::string& id) {
  if (id.size() <= 64) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--request-id has ", id.size(), " characters, expected 1 to 64"));
}

using JobCall = absl::StatusOr<v1::Job> (ConversionClient::*)(const std::string&);

// A line about the job that a call returned; empty for none.
using Remark = std::string (*)(const v1::Job&);

// What is not seen of the job itself: that nothing was cancelled.
std::string RemarkOnCancel(const v1::Job& job) {
  const v1::JobState state = job.status().state();
  if (state != v1::JOB_STATE_SUCCEEDED && state != v1::JOB_STATE_FAILED) return "";
  return absl::StrCat(job.name(), " had already ", StateText(state), ": nothing was cancelled\n");
}

// Calls the server about one job and prints the job that it returns.
absl::Status ShowJobAfter(JobCall call, const OneJobOptions& options, const CommandContext& context,
                          Remark remark = nullptr) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.server.output));
  LF_ASSIGN_OR_RETURN(const ServerTarget server, FindServer(options.server, context));
  ConversionClient client(server.channel, server.address, context.clock);
  LF_ASSIGN_OR_RETURN(const v1::Job job, (client.*call)(JobName(options.job)));
  if (remark != nullptr) context.terminal.Write(remark(job));
  LF_ASSIGN_OR_RETURN(const std::string text, RenderJob(job, format));
  return PrintOutput(text);
}

}  // namespace

absl::StatusOr<ServerTarget> FindServer(const ServerOptions& options,
                                        const CommandContext& context) {
  const auto choose = [&context](const std::optional<std::string>& flag, const char* variable) {
    return flag.has_value() ? *flag : context.environment(variable).value_or("");
  };
  ServerTarget target;
  target.address = choose(options.server, "LATENTFORGE_SERVER");
  if (target.address.empty()) target.address = kDefaultServer;
  ChannelSecurity security;
  security.ca = choose(options.tls_ca, "LATENTFORGE_TLS_CA");
  security.certificate = choose(options.tls_cert, "LATENTFORGE_TLS_CERT");
  security.key = choose(options.tls_key, "LATENTFORGE_TLS_KEY");
  security.server_name = choose(options.tls_server_name, "LATENTFORGE_TLS_SERVER_NAME");
  security.token_file = choose(options.token_file, "LATENTFORGE_TOKEN_FILE");
  LF_ASSIGN_OR_RETURN(target.channel, OpenChannel(target.address, security));
  return target;
}

std::string JobName(const std::string& text) {
  return absl::StartsWith(text, "jobs/") ? text : absl::StrCat("jobs/", text);
}

absl::Status RunSubmit(const SubmitOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.server.output));
  LF_ASSIGN_OR_RETURN(const JobDraft draft, BuildDraft(options.spec, context.files));
  LF_RETURN_IF_ERROR(CheckRequestId(options.request_id));
  v1::CreateJobRequest request;
  *request.mutable_spec() = draft.spec;
  request.mutable_labels()->insert(draft.labels.begin(), draft.labels.end());
  request.set_validate_only(options.validate_only);
  request.set_request_id(options.request_id);
  if (request.request_id().empty() && !options.validate_only) {
    LF_ASSIGN_OR_RETURN(*request.mutable_request_id(), NewRequestId());
    context.terminal.Write(absl::StrCat("request id: ", request.request_id(), "\n"));
  }
  LF_ASSIGN_OR_RETURN(const ServerTarget server, FindServer(options.server, context));
  ConversionClient client(server.channel, server.address, context.clock);
  LF_ASSIGN_OR_RETURN(const v1::CreateJobResponse response, client.CreateJob(request));
  for (const std::string& warning : response.estimate().warnings()) {
    context.terminal.Write(absl::StrCat("warning: ", Printable(warning), "\n"));
  }
  if (options.validate_only) {
    LF_ASSIGN_OR_RETURN(const std::string text, RenderEstimate(response, format));
    return PrintOutput(text);
  }
  if (!options.wait) {
    // The name alone is what a script or the next command needs.
    const OutputFormat submitted = format == OutputFormat::kTable ? OutputFormat::kName : format;
    LF_ASSIGN_OR_RETURN(const std::string text, RenderJob(response.job(), submitted));
    return PrintOutput(text);
  }
  context.terminal.Write(absl::StrCat("submitted ", response.job().name(), "\n"));
  WatchJobOptions watch;
  watch.server = options.server;
  watch.server.server = server.address;
  watch.job = response.job().name();
  watch.from_sequence = 0;
  watch.waiting = options.waiting;
  return RunWatch(watch, context);
}

absl::Status RunListJobs(const ListJobsOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.server.output));
  v1::ListJobsRequest request;
  LF_ASSIGN_OR_RETURN(*request.mutable_filter(), Filter(options));
  request.set_page_size(options.page_size);
  request.set_page_token(options.page_token);
  LF_ASSIGN_OR_RETURN(const ServerTarget server, FindServer(options.server, context));
  ConversionClient client(server.channel, server.address, context.clock);
  LF_ASSIGN_OR_RETURN(v1::ListJobsResponse jobs, client.ListJobs(request));
  while (options.all && !jobs.next_page_token().empty()) {
    request.set_page_token(jobs.next_page_token());
    LF_ASSIGN_OR_RETURN(const v1::ListJobsResponse page, client.ListJobs(request));
    jobs.mutable_jobs()->MergeFrom(page.jobs());
    jobs.set_next_page_token(page.next_page_token());
  }
  LF_ASSIGN_OR_RETURN(const std::string text, RenderJobs(jobs, format));
  return PrintOutput(text);
}

absl::Status RunGetJob(const OneJobOptions& options, const CommandContext& context) {
  return ShowJobAfter(&ConversionClient::GetJob, options, context);
}

absl::Status RunCancelJob(const OneJobOptions& options, const CommandContext& context) {
  return ShowJobAfter(&ConversionClient::CancelJob, options, context, RemarkOnCancel);
}

absl::Status RunPauseJob(const OneJobOptions& options, const CommandContext& context) {
  return ShowJobAfter(&ConversionClient::PauseJob, options, context);
}

absl::Status RunResumeJob(const OneJobOptions& options, const CommandContext& context) {
  return ShowJobAfter(&ConversionClient::ResumeJob, options, context);
}

absl::Status RunRetryJob(const OneJobOptions& options, const CommandContext& context) {
  return ShowJobAfter(&ConversionClient::RetryJob, options, context);
}

absl::Status RunListAttempts(const OneJobOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.server.output));
  LF_ASSIGN_OR_RETURN(const ServerTarget server, FindServer(options.server, context));
  ConversionClient client(server.channel, server.address, context.clock);
  v1::ListAttemptsRequest request;
  request.set_parent(JobName(options.job));
  v1::ListAttemptsResponse attempts;
  do {
    LF_ASSIGN_OR_RETURN(const v1::ListAttemptsResponse page, client.ListAttempts(request));
    attempts.mutable_attempts()->MergeFrom(page.attempts());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  LF_ASSIGN_OR_RETURN(const std::string text, RenderAttempts(attempts, format));
  return PrintOutput(text);
}

absl::Status RunDeleteJob(const OneJobOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.server.output));
  LF_ASSIGN_OR_RETURN(const ServerTarget server, FindServer(options.server, context));
  ConversionClient client(server.channel, server.address, context.clock);
  const std::string name = JobName(options.job);
  LF_RETURN_IF_ERROR(client.DeleteJob(name));
  v1::Job deleted;
  deleted.set_name(name);
  const OutputFormat named = format == OutputFormat::kTable ? OutputFormat::kName : format;
  LF_ASSIGN_OR_RETURN(const std::string text, RenderJob(deleted, named));
  return PrintOutput(text);
}

}  // namespace latentforge::client
