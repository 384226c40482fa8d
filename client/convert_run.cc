#include "client/convert_run.h"

#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "client/disk_guard.h"
#include "client/error.h"
#include "client/follow_job.h"
#include "client/interrupt.h"
#include "client/leftover.h"
#include "client/local_device.h"
#include "client/output_lock.h"
#include "client/private_session.h"
#include "client/progress_view.h"
#include "client/result_table.h"
#include "client/state_folder.h"

namespace latentforge::client {
namespace {

constexpr int64_t kMaxReportBytes = int64_t{64} << 20;

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

absl::StatusOr<v1::Job> ConvertIn(StateFolder& folder, const PrivateServiceOptions& programs,
                                  const JobDraft& draft, const std::string& digest,
                                  const CommandContext& context) {
  LF_RETURN_IF_ERROR(CheckNotFull(folder.path(), FreeBytes));
  LF_ASSIGN_OR_RETURN(const OutputLock output,
                      OutputLock::Acquire(folder.path().parent_path(), draft.spec.output().uri()));
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<PrivateSession> session,
                      PrivateSession::Start(folder, programs, context.clock));
  const std::unique_ptr<ProgressView> view = MakeProgressView(context.terminal, context.clock);
  absl::StatusOr<v1::Job> ended = session->Run(draft, digest, *view);
  session->Stop();
  return ended;
}

}  // namespace

absl::Status RunConvert(const ConvertOptions& options, const CommandContext& context) {
  LF_ASSIGN_OR_RETURN(const OutputFormat format, ParseOutputFormat(options.output));
  LF_ASSIGN_OR_RETURN(const JobDraft draft, BuildDraft(options.spec, context.files));
  LF_RETURN_IF_ERROR(InputStatus(CheckLocalInputs(draft, context.files)));
  LF_RETURN_IF_ERROR(CheckLocalDevice(draft.spec.device()));
  LF_ASSIGN_OR_RETURN(const PrivateServiceOptions programs, FindServicePrograms());
  LF_ASSIGN_OR_RETURN(const std::filesystem::path root, StateRoot(options, context));
  const std::string digest = SpecDigest(draft.spec);
  LF_ASSIGN_OR_RETURN(StateFolder folder, StateFolder::Open(root, digest));
  if (folder.existed()) {
    context.terminal.Write(
        absl::StrCat("continuing the interrupted run in ", folder.path().string(), "\n"));
  }
  const absl::StatusOr<v1::Job> job = ConvertIn(folder, programs, draft, digest, context);
  const Leftover left = LeftBy(job.status(), job.ok() && WorkIsDone(*job), folder.existed());
  LF_RETURN_IF_ERROR(CloseWork(folder, left, options.keep_work, context.terminal));
  if (!job.ok()) return job.status();
  if (job->status().state() == v1::JOB_STATE_CANCELLED && Interrupted()) return Interruption();
  LF_RETURN_IF_ERROR(ConversionOutcome(*job));
  return PrintResult(job->status().result(), format, draft, context.program);
}

}  // namespace latentforge::client
