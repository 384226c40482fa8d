#include "client/private_session.h"

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/disk_guard.h"
#include "client/error.h"
#include "client/follow_job.h"
#include "client/interrupt.h"
#include "client/job_tracker.h"
#include "client/own_program.h"

namespace latentforge::client {
namespace {

bool ArtifactExists(const v1::Job& job) {
  const absl::StatusOr<std::filesystem::path> path =
      PathFromUri(job.status().result().artifact_uri());
  std::error_code error;
  return path.ok() && std::filesystem::exists(*path, error);
}

// Waits until a job that an earlier run was cancelling has ended: its output folder
// is taken until then. Its worker is gone, so that takes a lease at most.
absl::StatusOr<v1::Job> AwaitCancelled(ConversionClient& client, v1::Job job, Clock& clock) {
  while (job.status().state() == v1::JOB_STATE_CANCELLING && !Interrupted()) {
    clock.SleepFor(absl::Milliseconds(200));
    LF_ASSIGN_OR_RETURN(job, client.GetJob(job.name()));
  }
  return job;
}

// Submits, or finds what an interrupted run of the same command submitted: the
// request id is made of the specification. A job that ended without an artifact is
// of no use, so the next id is tried.
absl::StatusOr<v1::Job> Submit(ConversionClient& client, const JobDraft& draft,
                               const std::string& digest, Clock& clock) {
  constexpr int kMostRuns = 1000;
  for (int run = 1; run <= kMostRuns; ++run) {
    v1::CreateJobRequest request;
    *request.mutable_spec() = draft.spec;
    request.mutable_labels()->insert(draft.labels.begin(), draft.labels.end());
    request.set_request_id(absl::StrCat("convert-", digest, "-", run));
    absl::StatusOr<v1::CreateJobResponse> response = client.CreateJob(request);
    if (!response.ok()) return response.status();
    LF_ASSIGN_OR_RETURN(v1::Job job,
                        AwaitCancelled(client, std::move(*response->mutable_job()), clock));
    const v1::JobState state = job.status().state();
    const bool finished = state == v1::JOB_STATE_SUCCEEDED && ArtifactExists(job);
    if (finished || !IsTerminal(state)) return job;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the work folder holds ", kMostRuns, " ended runs of this conversion"));
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

}  // namespace

absl::StatusOr<PrivateServiceOptions> FindServicePrograms() {
  PrivateServiceOptions options;
  LF_ASSIGN_OR_RETURN(options.server, OwnProgram("latentforge-server"));
  LF_ASSIGN_OR_RETURN(options.worker, OwnProgram("latentforge-worker"));
  LF_ASSIGN_OR_RETURN(options.convert, OwnProgram("latentforge-convert"));
  options.interrupted = Interrupted;
  return options;
}

absl::StatusOr<std::unique_ptr<PrivateSession>> PrivateSession::Start(
    StateFolder& folder, PrivateServiceOptions programs, Clock& clock) {
  programs.folder = folder.path();
  LF_ASSIGN_OR_RETURN(programs.socket, folder.SocketPath());
  LF_ASSIGN_OR_RETURN(std::unique_ptr<PrivateService> service,
                      PrivateService::Start(programs, clock));
  LF_ASSIGN_OR_RETURN(const auto channel, OpenChannel(service->address()));
  auto client = std::make_unique<ConversionClient>(channel, service->address(), clock);
  return std::unique_ptr<PrivateSession>(
      new PrivateSession(folder.path(), std::move(service), std::move(client), clock));
}

absl::Status PrivateSession::Validate(const JobDraft& draft) {
  v1::CreateJobRequest request;
  *request.mutable_spec() = draft.spec;
  request.set_validate_only(true);
  const absl::Status status = client_->CreateJob(request).status();
  return CauseOf(status, *service_, clock_);
}

absl::StatusOr<v1::Job> PrivateSession::Run(const JobDraft& draft, const std::string& digest,
                                            ProgressView& view) {
  const absl::StatusOr<v1::Job> job = Submit(*client_, draft, digest, clock_);
  if (!job.ok()) return CauseOf(job.status(), *service_, clock_);
  absl::StatusOr<v1::Job> ended = Follow(job->name(), view);
  if (!ended.ok()) return CauseOf(ended.status(), *service_, clock_);
  return ended;
}

absl::StatusOr<std::vector<v1::Job>> PrivateSession::Jobs() {
  constexpr int kJobsPerPage = 100;
  v1::ListJobsRequest request;
  request.set_page_size(kJobsPerPage);
  std::vector<v1::Job> jobs;
  do {
    const absl::StatusOr<v1::ListJobsResponse> page = client_->ListJobs(request);
    if (!page.ok()) return CauseOf(page.status(), *service_, clock_);
    jobs.insert(jobs.end(), page->jobs().begin(), page->jobs().end());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return jobs;
}

absl::Status PrivateSession::Cancel(const v1::Job& job) {
  absl::StatusOr<v1::Job> ended = client_->CancelJob(job.name());
  if (ended.ok()) ended = AwaitCancelled(*client_, *std::move(ended), clock_);
  if (!ended.ok()) return CauseOf(ended.status(), *service_, clock_);
  return IsTerminal(ended->status().state()) ? absl::OkStatus()
                                             : absl::CancelledError("interrupted");
}

void PrivateSession::Stop() { service_->Stop(); }

absl::StatusOr<v1::Job> PrivateSession::Follow(const std::string& name, ProgressView& view) {
  FollowOptions options;
  options.after = 0;
  options.interrupted = Interrupted;
  DiskGuard disk(folder_, clock_, FreeBytes);
  options.check = [&] {
    LF_RETURN_IF_ERROR(service_->Check());
    return disk.Check();
  };
  absl::StatusOr<FollowResult> result = FollowJob(*client_, clock_, name, view, options);
  if (result.ok() && result->end == FollowEnd::kInterrupted) {
    view.Notice("cancelling; Ctrl-C again leaves at once");
    const absl::StatusOr<v1::Job> cancelled = client_->CancelJob(name);
    if (!cancelled.ok()) {
      view.Finish();
      return cancelled.status();
    }
    options.after = result->sequence;
    options.interrupted = nullptr;
    result = FollowJob(*client_, clock_, name, view, options);
  }
  view.Finish();
  if (!result.ok()) return result.status();
  return std::move(result->job);
}

}  // namespace latentforge::client
