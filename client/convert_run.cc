#include "client/convert_run.h"

#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "client/conversion_client.h"
#include "client/disk_guard.h"
#include "client/error.h"
#include "client/follow_job.h"
#include "client/interrupt.h"
#include "client/job_tracker.h"
#include "client/local_device.h"
#include "client/output_lock.h"
#include "client/own_program.h"
#include "client/private_service.h"
#include "client/result_table.h"
#include "client/state_folder.h"

namespace latentforge::client {
namespace {

constexpr int64_t kMaxReportBytes = int64_t{64} << 20;

bool ArtifactExists(const v1::Job& job) {
  const absl::StatusOr<std::filesystem::path> path =
      PathFromUri(job.status().result().artifact_uri());
  std::error_code error;
  return path.ok() && std::filesystem::exists(*path, error);
}

// Waits until a job that an earlier run was cancelling has ended: its output folder
// is taken until then. Its worker is gone, so that takes a lease at most.
absl::StatusOr<v1::Job> AwaitCancelled(ConversionClient& client, v1::Job job,
                                       const CommandContext& context) {
  while (job.status().state() == v1::JOB_STATE_CANCELLING && !Interrupted()) {
    context.clock.SleepFor(absl::Milliseconds(200));
    LF_ASSIGN_OR_RETURN(job, client.GetJob(job.name()));
  }
  return job;
}

// Submits, or finds what an interrupted run of the same command submitted: the
// request id is made of the specification. A job that ended without an artifact is
// of no use, so the next id is tried.
absl::StatusOr<v1::Job> Submit(ConversionClient& client, const JobDraft& draft,
                               const std::string& digest, const CommandContext& context) {
  constexpr int kMostRuns = 1000;
  for (int run = 1; run <= kMostRuns; ++run) {
    v1::CreateJobRequest request;
    *request.mutable_spec() = draft.spec;
    request.mutable_labels()->insert(draft.labels.begin(), draft.labels.end());
    request.set_request_id(absl::StrCat("convert-", digest, "-", run));
    absl::StatusOr<v1::CreateJobResponse> response = client.CreateJob(request);
    if (!response.ok()) return response.status();
    LF_ASSIGN_OR_RETURN(v1::Job job,
                        AwaitCancelled(client, std::move(*response->mutable_job()), context));
    const v1::JobState state = job.status().state();
    const bool finished = state == v1::JOB_STATE_SUCCEEDED && ArtifactExists(job);
    if (finished || !IsTerminal(state)) return job;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the work folder holds ", kMostRuns, " ended runs of this conversion"));
}

absl::Status PrintResult(const v1::ConversionResult& result, OutputFormat format,
                         const JobDraft& draft, const std::string& program) {
  if (format == OutputFormat::kName) {
    return PrintOutput(absl::StrCat(PathText(result.artifact_uri()), "\n"));
  }
  if (format == OutputFormat::kJson || format == OutputFormat::kJsonLines) {
    LF_ASSIGN_OR_RETURN(const std::filesystem::path path, PathFromUri(result.report_uri()));
    LF_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxReportBytes));
    LF_ASSIGN_OR_RETURN(const Json report, ParseJson(text));
    return PrintOutput(
        absl::StrCat(WriteJson(report, format == OutputFormat::kJson ? 2 : -1), "\n"));
  }
  // The text that was measured already; the calibration text would flatter.
  const std::string& measured = draft.spec.evaluation().corpus().uri();
  const std::string text = measured.empty() ? "OTHER.txt" : ShellWord(PathText(measured));
  return PrintOutput(absl::StrCat(ResultTable(result, draft.spec), "\nnext: ", program,
                                  " evaluate ", ShellWord(PathText(result.artifact_uri())),
                                  " --text ", text, "\n"));
}

// Follows the job; after the first Ctrl-C asks for cancellation and follows on.
absl::StatusOr<v1::Job> Follow(ConversionClient& client, PrivateService& service,
                               const std::string& name, const std::filesystem::path& folder,
                               const CommandContext& context) {
  const std::unique_ptr<ProgressView> view = MakeProgressView(context.terminal, context.clock);
  FollowOptions options;
  options.after = 0;
  options.interrupted = Interrupted;
  DiskGuard disk(folder, context.clock, FreeBytes);
  options.check = [&] {
    LF_RETURN_IF_ERROR(service.Check());
    return disk.Check();
  };
  absl::StatusOr<FollowResult> result = FollowJob(client, context.clock, name, *view, options);
  if (result.ok() && result->end == FollowEnd::kInterrupted) {
    view->Notice("cancelling; Ctrl-C again leaves at once");
    const absl::StatusOr<v1::Job> cancelled = client.CancelJob(name);
    if (!cancelled.ok()) {
      view->Finish();
      return cancelled.status();
    }
    options.after = result->sequence;
    options.interrupted = nullptr;
    result = FollowJob(client, context.clock, name, *view, options);
  }
  view->Finish();
  if (!result.ok()) return result.status();
  return std::move(result->job);
}

// With the reason that a submitted job would be refused for.
absl::Status InputStatus(const absl::Status& status) {
  const bool model = absl::StartsWith(status.message(), "MODEL");
  return WithReason(status, model ? "SOURCE_NOT_READABLE" : "CORPUS_NOT_READABLE");
}

absl::Status Interruption() {
  return WithExitCode(absl::CancelledError("interrupted; the conversion was cancelled"),
                      kExitInterrupted);
}

absl::StatusOr<std::filesystem::path> StateRoot(const ConvertOptions& options,
                                                const CommandContext& context) {
  if (!options.work_dir.has_value()) return DefaultStateRoot(context.environment);
  if (options.work_dir->empty()) return absl::InvalidArgumentError("--work-dir is empty");
  return (context.files.current_folder / *options.work_dir).lexically_normal();
}

// The work folder is of use as long as a rerun could continue in it, or somebody
// has to look into the logs. Another deadline is another specification, and folder.
bool WorkIsDone(const v1::Job& job) {
  const v1::JobStatus& status = job.status();
  return status.state() != v1::JOB_STATE_FAILED ||
         status.error().error_class() == v1::ERROR_CLASS_USER ||
         status.error().reason() == "JOB_DEADLINE";
}

// A request that the same command would be refused again.
bool IsRefusal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsAlreadyExists(status) ||
         absl::IsNotFound(status) || absl::IsUnimplemented(status) ||
         absl::IsFailedPrecondition(status);
}

// What lies in the work folder at the end.
enum class Leftover {
  kNothing,     // of any use
  kUnfinished,  // the same command goes on with it
  kEarlier,     // an earlier run's, for when the refusal is out of the way
};

Leftover LeftBy(const absl::StatusOr<v1::Job>& job, bool existed) {
  if (job.ok()) return WorkIsDone(*job) ? Leftover::kNothing : Leftover::kUnfinished;
  if (IsRefusal(job.status())) return existed ? Leftover::kEarlier : Leftover::kNothing;
  // Interrupted before there was a job.
  if (absl::IsCancelled(job.status()) && !existed) return Leftover::kNothing;
  return Leftover::kUnfinished;
}

const char* KeptText(Leftover left) {
  switch (left) {
    case Leftover::kUnfinished:
      return "logs; the same command goes on with what is there";
    case Leftover::kEarlier:
      return "what an earlier run finished";
    default:
      return "logs and files of this run";
  }
}

// A private server that does not answer has died, as by a limit of the shell: how it
// ended says more. The kernel may need a moment to tell.
absl::Status CauseOf(const absl::Status& status, PrivateService& service, Clock& clock) {
  if (ReasonOf(status) != "SERVER_UNREACHABLE") return status;
  for (int i = 0; i < 100; ++i) {
    LF_RETURN_IF_ERROR(service.Check());
    clock.SleepFor(absl::Milliseconds(10));
  }
  return status;
}

// All programs are looked for before any is started.
absl::StatusOr<PrivateServiceOptions> FindPrograms() {
  PrivateServiceOptions options;
  LF_ASSIGN_OR_RETURN(options.server, OwnProgram("latentforge-server"));
  LF_ASSIGN_OR_RETURN(options.worker, OwnProgram("latentforge-worker"));
  LF_ASSIGN_OR_RETURN(options.convert, OwnProgram("latentforge-convert"));
  options.interrupted = Interrupted;
  return options;
}

absl::StatusOr<v1::Job> ConvertIn(StateFolder& folder, PrivateServiceOptions options,
                                  const JobDraft& draft, const std::string& digest,
                                  const CommandContext& context) {
  LF_RETURN_IF_ERROR(CheckNotFull(folder.path(), FreeBytes));
  LF_ASSIGN_OR_RETURN(const OutputLock output,
                      OutputLock::Acquire(folder.path().parent_path(), draft.spec.output().uri()));
  options.folder = folder.path();
  LF_ASSIGN_OR_RETURN(options.socket, folder.SocketPath());
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<PrivateService> service,
                      PrivateService::Start(options, context.clock));
  LF_ASSIGN_OR_RETURN(const auto channel, OpenChannel(service->address()));
  ConversionClient client(channel, service->address(), context.clock);
  const absl::StatusOr<v1::Job> job = Submit(client, draft, digest, context);
  if (!job.ok()) return CauseOf(job.status(), *service, context.clock);
  absl::StatusOr<v1::Job> ended = Follow(client, *service, job->name(), folder.path(), context);
  if (!ended.ok()) ended = CauseOf(ended.status(), *service, context.clock);
  service->Stop();
  return ended;
}

}  // namespace

absl::Status RunConvert(const ConvertOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.output));
  LF_ASSIGN_OR_RETURN(const JobDraft draft, BuildDraft(options.spec, context.files));
  LF_RETURN_IF_ERROR(InputStatus(CheckLocalInputs(draft, context.files)));
  LF_RETURN_IF_ERROR(CheckLocalDevice(draft.spec.device()));
  LF_ASSIGN_OR_RETURN(PrivateServiceOptions programs, FindPrograms());
  LF_ASSIGN_OR_RETURN(const std::filesystem::path root, StateRoot(options, context));
  const std::string digest = SpecDigest(draft.spec);
  LF_ASSIGN_OR_RETURN(StateFolder folder, StateFolder::Open(root, digest));
  if (folder.existed()) {
    context.terminal.Write(
        absl::StrCat("continuing the interrupted run in ", folder.path().string(), "\n"));
  }
  const absl::StatusOr<v1::Job> job =
      ConvertIn(folder, std::move(programs), draft, digest, context);
  folder.Release();
  const Leftover left = LeftBy(job, folder.existed());
  if (left == Leftover::kNothing && !options.keep_work) {
    LF_RETURN_IF_ERROR(folder.Remove());
  } else {
    context.terminal.Write(
        absl::StrCat("kept: ", folder.path().string(), " (", KeptText(left), ")\n"));
  }
  if (!job.ok()) return job.status();
  if (job->status().state() == v1::JOB_STATE_CANCELLED && Interrupted()) return Interruption();
  LF_RETURN_IF_ERROR(ConversionOutcome(*job));
  return PrintResult(job->status().result(), format, draft, context.program);
}

}  // namespace latentforge::client
