#include "client/output.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/error.h"
#include "client/progress_text.h"
#include "client/result_table.h"
#include "client/text_format.h"
#include "google/protobuf/util/json_util.h"
#include "proto/enum_text.h"

namespace latentforge::client {
namespace {

std::string Percent(const v1::Job& job) {
  return absl::StrFormat("%.0f %%", job.status().percent());
}

std::string Labels(const v1::Job& job) {
  std::vector<std::string> labels;
  for (const auto& [key, value] : job.labels()) labels.push_back(absl::StrCat(key, "=", value));
  std::sort(labels.begin(), labels.end());
  return Printable(absl::StrJoin(labels, ","));
}

std::string PhaseColumn(const v1::Job& job) {
  const std::string phase = PhaseText(job.status().phase());
  return phase.empty() ? "-" : phase;
}

std::string JobsTable(const v1::ListJobsResponse& jobs) {
  std::vector<std::vector<std::string>> rows;
  for (const v1::Job& job : jobs.jobs()) {
    rows.push_back({job.name(), StateText(job.status().state()), PhaseColumn(job), Percent(job),
                    FormatTime(job.create_time()), Labels(job),
                    Printable(job.spec().source().uri())});
  }
  std::string table =
      FormatTable({"NAME", "STATE", "PHASE", "DONE", "CREATED (UTC)", "LABELS", "SOURCE"}, rows);
  if (!jobs.next_page_token().empty()) {
    absl::StrAppend(&table, "more: --page-token ", jobs.next_page_token(), "  (or --all)\n");
  }
  return table;
}

std::string JobTable(const v1::Job& job) {
  const v1::JobStatus& status = job.status();
  std::vector<std::vector<std::string>> rows = {
      {"name", job.name()},
      {"state", StateText(status.state())},
      {"phase", PhaseColumn(job)},
      {"done", Percent(job)},
      {"attempt", absl::StrCat(status.attempt(), " of ", status.max_attempts())},
      {"worker", status.worker().empty() ? "-" : Printable(status.worker())},
      {"source", Printable(job.spec().source().uri())},
      {"output", Printable(job.spec().output().uri())},
      {"kv budget", absl::StrCat(job.spec().budget().kv_budget())},
      {"created (UTC)", FormatTime(job.create_time())},
      {"ended (UTC)", FormatTime(job.end_time())},
      {"deadline (UTC)", FormatTime(job.deadline_time())}};
  if (!status.queue_reason().empty()) rows.push_back({"waits", Printable(status.queue_reason())});
  if (job.has_queue_deadline_time()) {
    rows.push_back({"queue deadline (UTC)", FormatTime(job.queue_deadline_time())});
  }
  if (job.has_expire_time()) {
    rows.push_back({"deleted after (UTC)", FormatTime(job.expire_time())});
  }
  if (!job.labels().empty()) rows.push_back({"labels", Labels(job)});
  if (status.has_error()) {
    rows.push_back({"error", absl::StrCat(Printable(status.error().message()), " [",
                                          Printable(status.error().reason()), "]")});
  }
  std::string table = FormatTable({}, rows);
  if (status.has_result()) absl::StrAppend(&table, "\n", ResultTable(status.result(), job.spec()));
  return table;
}

std::string WorkersTable(const v1::ListWorkersResponse& workers) {
  std::vector<std::vector<std::string>> rows;
  for (const v1::Worker& worker : workers.workers()) {
    std::vector<std::string> jobs;
    for (const v1::Lease& lease : worker.leases()) jobs.push_back(lease.job());
    rows.push_back({Printable(worker.info().name()), Printable(worker.info().version()),
                    Printable(worker.info().hostname()),
                    absl::StrCat(worker.leases_size(), "/", worker.info().slots()),
                    Printable(absl::StrJoin(worker.info().devices(), ",")),
                    FormatBytes(worker.info().memory_bytes()), FormatTime(worker.last_seen_time()),
                    Printable(absl::StrJoin(jobs, ","))});
  }
  return FormatTable({"NAME", "VERSION", "HOST", "BUSY", "DEVICES", "MEMORY", "SEEN (UTC)", "JOBS"},
                     rows);
}

// "calibrating 2 m 3 s, factorizing 12 s".
std::string PhasesText(const v1::Attempt& attempt) {
  std::vector<std::string> phases;
  for (const v1::PhaseTiming& timing : attempt.phases()) {
    phases.push_back(absl::StrCat(PhaseText(timing.phase()), " ", FormatSeconds(timing.seconds())));
  }
  return absl::StrJoin(phases, ", ");
}

std::string AttemptsTable(const v1::ListAttemptsResponse& attempts) {
  std::vector<std::vector<std::string>> rows;
  for (const v1::Attempt& attempt : attempts.attempts()) {
    rows.push_back({attempt.name(), ShortEnumName(attempt.outcome()), Printable(attempt.worker()),
                    FormatTime(attempt.start_time()), FormatTime(attempt.end_time()),
                    PhasesText(attempt), Printable(attempt.error().reason())});
  }
  return FormatTable(
      {"NAME", "OUTCOME", "WORKER", "STARTED (UTC)", "ENDED (UTC)", "PHASES", "ERROR"}, rows);
}

// One line each of a repeated field.
template <typename Items>
absl::StatusOr<std::string> JsonLines(const Items& items) {
  std::string lines;
  for (const auto& item : items) {
    LF_ASSIGN_OR_RETURN(const std::string line, ToJson(item, true));
    lines += line;
  }
  return lines;
}

}  // namespace

absl::StatusOr<OutputFormat> ParseOutputFormat(absl::string_view text) {
  if (text == "table") return OutputFormat::kTable;
  if (text == "json") return OutputFormat::kJson;
  if (text == "jsonl") return OutputFormat::kJsonLines;
  if (text == "name") return OutputFormat::kName;
  return absl::InvalidArgumentError(
      absl::StrCat("-o is \"", text, "\", expected table, json, jsonl or name"));
}

absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message, bool one_line) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = !one_line;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    return absl::InternalError(
        absl::StrCat("writing ", message.GetDescriptor()->name(), " as JSON: ", status.ToString()));
  }
  if (json.empty() || json.back() != '\n') json += '\n';
  return json;
}

absl::StatusOr<std::string> RenderJobs(const v1::ListJobsResponse& jobs, OutputFormat format) {
  switch (format) {
    case OutputFormat::kJson:
      return ToJson(jobs, false);
    case OutputFormat::kJsonLines:
      return JsonLines(jobs.jobs());
    case OutputFormat::kName: {
      std::string names;
      for (const v1::Job& job : jobs.jobs()) absl::StrAppend(&names, job.name(), "\n");
      return names;
    }
    default:
      return JobsTable(jobs);
  }
}

absl::StatusOr<std::string> RenderJob(const v1::Job& job, OutputFormat format) {
  switch (format) {
    case OutputFormat::kJson:
    case OutputFormat::kJsonLines:
      return ToJson(job, format == OutputFormat::kJsonLines);
    case OutputFormat::kName:
      return absl::StrCat(job.name(), "\n");
    default:
      return JobTable(job);
  }
}

absl::StatusOr<std::string> RenderAttempts(const v1::ListAttemptsResponse& attempts,
                                           OutputFormat format) {
  switch (format) {
    case OutputFormat::kJson:
      return ToJson(attempts, false);
    case OutputFormat::kJsonLines:
      return JsonLines(attempts.attempts());
    case OutputFormat::kName: {
      std::string names;
      for (const v1::Attempt& attempt : attempts.attempts()) {
        absl::StrAppend(&names, attempt.name(), "\n");
      }
      return names;
    }
    default:
      return AttemptsTable(attempts);
  }
}

absl::StatusOr<std::string> RenderWorkers(const v1::ListWorkersResponse& workers,
                                          OutputFormat format) {
  switch (format) {
    case OutputFormat::kJson:
      return ToJson(workers, false);
    case OutputFormat::kJsonLines:
      return JsonLines(workers.workers());
    case OutputFormat::kName: {
      std::string names;
      for (const v1::Worker& worker : workers.workers()) {
        absl::StrAppend(&names, worker.info().name(), "\n");
      }
      return names;
    }
    default:
      return WorkersTable(workers);
  }
}

absl::StatusOr<std::string> RenderEstimate(const v1::CreateJobResponse& response,
                                           OutputFormat format) {
  if (format != OutputFormat::kTable) return ToJson(response, format != OutputFormat::kJson);
  const v1::Estimate& estimate = response.estimate();
  return FormatTable({},
                     {{"peak memory", FormatBytes(estimate.peak_memory_bytes())},
                      {"time", FormatSeconds(estimate.seconds())},
                      {"size of the artifact", FormatBytes(estimate.output_bytes())},
                      {"KV cache a token",
                       absl::StrCat(FormatBytes(estimate.kv_bytes_per_token_base()), " -> at most ",
                                    FormatBytes(estimate.kv_bytes_per_token_converted()))}});
}

absl::Status PrintOutput(absl::string_view text) {
  errno = 0;
  if (fwrite(text.data(), 1, text.size(), stdout) == text.size() && fflush(stdout) == 0) {
    return absl::OkStatus();
  }
  const int error = errno;
  if (error == EPIPE) {
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
  }
  const absl::Status failed = ErrnoStatus(error, "write", "standard output");
  if (error != EBADF) return failed;
  return WithNextStep(failed, "standard output is closed: leave it open, or send it to a file");
}

}  // namespace latentforge::client
