#include "service/jobs.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "proto/enum_text.h"
#include "service/errors.h"
#include "service/job_name.h"
#include "service/needs.h"
#include "service/paging.h"
#include "service/queue_reason.h"
#include "service/request_checks.h"

namespace latentforge::service {
namespace {

// The same bytes for the same message within one build: map entries are sorted.
std::string Canonical(const google::protobuf::Message& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

std::string BodyDigest(const v1::CreateJobRequest& request) {
  v1::CreateJobRequest body = request;
  body.clear_request_id();
  body.clear_validate_only();
  return Sha256Hex(Canonical(body));
}

// The same text for the same conditions in any order, of callers who see the same.
std::string Binding(const v1::JobFilter& filter, const std::string& tenant) {
  v1::JobFilter sorted = filter;
  std::sort(sorted.mutable_states()->begin(), sorted.mutable_states()->end());
  return absl::StrCat("jobs:", tenant, ":", Canonical(sorted));
}

// Jobs as clients see them: those that wait with the reason why.
class Viewer {
 public:
  Viewer(JobEngine& engine, std::vector<v1::WorkerInfo> workers)
      : engine_(engine), workers_(std::move(workers)) {}

  // Errors of Store::Use.
  absl::StatusOr<v1::Job> View(JobRecord record) {
    v1::Job job = std::move(record.job);
    if (job.status().state() != v1::JOB_STATE_QUEUED) return job;
    const Needs needs = ParseNeedsKey(record.needs);
    std::string reason = QueueReason(needs, workers_);
    if (reason.empty()) {
      LF_ASSIGN_OR_RETURN(const TenantRuns* runs, RunsOf(record.tenant));
      reason = LimitReason(*runs, needs, workers_);
    }
    job.mutable_status()->set_queue_reason(std::move(reason));
    return job;
  }

 private:
  // Counted once for a page of jobs, and only for a tenant that has a limit.
  absl::StatusOr<const TenantRuns*> RunsOf(const std::string& tenant) {
    if (const auto found = runs_.find(tenant); found != runs_.end()) return &found->second;
    TenantRuns runs{.tenant = tenant, .limits = engine_.LimitsOf(tenant)};
    if (runs.limits.max_running_jobs > 0 || runs.limits.max_running_gpus > 0) {
      LF_ASSIGN_OR_RETURN(const TenantUse use, engine_.store().Use(tenant));
      runs.jobs = use.running;
      runs.gpus = use.gpus;
    }
    return &(runs_[tenant] = std::move(runs));
  }

  JobEngine& engine_;
  const std::vector<v1::WorkerInfo> workers_;
  std::map<std::string, TenantRuns> runs_;
};

}  // namespace

absl::StatusOr<v1::CreateJobResponse> Jobs::Create(const Identity& caller,
                                                   const v1::CreateJobRequest& request) {
  absl::StatusOr<v1::CreateJobResponse> response = TryCreate(caller, request);
  // Another call was faster: now the job of this request_id is there, or is deleted.
  const bool created =
      absl::IsAlreadyExists(response.status()) && ReasonOf(response.status()) == kRequestIdReused;
  if (created || absl::IsNotFound(response.status())) response = TryCreate(caller, request);
  if (!response.ok()) engine_.observer().SubmitRejected(ReasonOf(response.status()));
  return response;
}

absl::StatusOr<v1::CreateJobResponse> Jobs::TryCreate(const Identity& caller,
                                                      const v1::CreateJobRequest& request) {
  LF_RETURN_IF_ERROR(CheckCreateRequest(request));
  const std::string digest = BodyDigest(request);
  LF_ASSIGN_OR_RETURN(auto repeated, FindRepeated(caller, request, digest));
  if (repeated.has_value()) return *std::move(repeated);
  const TenantLimits limits = engine_.LimitsOf(caller.tenant);
  LF_RETURN_IF_ERROR(
      rates_.Take(caller.tenant, limits.max_submits_per_minute, engine_.Monotonic()));
  LF_ASSIGN_OR_RETURN(CheckedSpec checked, checker_.Check(request.spec(), limits.allowed_roots));
  JobRecord record;
  record.tenant = caller.tenant;
  record.job.set_tenant(caller.tenant);
  *record.job.mutable_spec() = std::move(checked.spec);
  *record.job.mutable_labels() = request.labels();
  record.job.mutable_status()->set_max_attempts(options_.max_attempts);
  record.estimate = checked.estimate;
  record.output_path = checked.output_path;
  record.needs = NeedsKey(NeedsOf(record.job.spec(), checked.estimate));
  v1::CreateJobResponse response;
  *response.mutable_estimate() = checked.estimate;
  if (request.validate_only()) {
    LF_RETURN_IF_ERROR(engine_.CheckQuota(caller.tenant, record.needs));
    *response.mutable_job() = record.job;
    return response;
  }
  record.id = options_.new_id();
  record.job.set_name(JobName(record.id));
  LF_ASSIGN_OR_RETURN(JobRecord created,
                      engine_.Create(std::move(record), request.request_id(), digest));
  *response.mutable_job() = std::move(created.job);
  return response;
}

absl::StatusOr<std::optional<v1::CreateJobResponse>> Jobs::FindRepeated(
    const Identity& caller, const v1::CreateJobRequest& request, const std::string& digest) {
  if (request.request_id().empty() || request.validate_only()) return std::nullopt;
  LF_ASSIGN_OR_RETURN(const auto known,
                      engine_.store().FindRequest(caller.tenant, request.request_id()));
  if (!known.has_value()) return std::nullopt;
  if (known->digest != digest) {
    return MakeFieldError(
        kRequestIdReused,
        {{"request_id",
          absl::StrCat("is \"", request.request_id(), "\", which belongs to ",
                       JobName(known->job_id), " with another specification, expected a new one")}},
        {{"job", JobName(known->job_id)}});
  }
  if (known->deleted) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "JOB_DELETED",
        absl::StrCat("request_id \"", request.request_id(), "\" made ", JobName(known->job_id),
                     ", which was deleted; expected a new request_id"),
        {{"job", JobName(known->job_id)}, {"request_id", request.request_id()}});
  }
  LF_ASSIGN_OR_RETURN(JobRecord record, engine_.store().Get(known->job_id));
  engine_.observer().SubmitDeduplicated();
  v1::CreateJobResponse response;
  *response.mutable_job() = std::move(record.job);
  *response.mutable_estimate() = std::move(record.estimate);
  return response;
}

absl::StatusOr<JobRecord> Jobs::Find(const Identity& caller, absl::string_view name) {
  LF_ASSIGN_OR_RETURN(const std::string id, ParseJobName(name));
  LF_ASSIGN_OR_RETURN(JobRecord record, engine_.store().Get(id));
  if (!caller.Sees(record.tenant)) return JobNotFoundError(id);
  return record;
}

absl::StatusOr<v1::GetJobResponse> Jobs::Get(const Identity& caller,
                                             const v1::GetJobRequest& request) {
  LF_ASSIGN_OR_RETURN(JobRecord record, Find(caller, request.name()));
  v1::GetJobResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_job(),
                      Viewer(engine_, options_.workers()).View(std::move(record)));
  return response;
}

absl::StatusOr<v1::ListJobsResponse> Jobs::List(const Identity& caller,
                                                const v1::ListJobsRequest& request) {
  LF_ASSIGN_OR_RETURN(const int page_size, EffectivePageSize(request.page_size()));
  LF_RETURN_IF_ERROR(CheckFilter(request.filter()));
  JobQuery query;
  query.tenant = caller.role == Role::kAdmin ? request.filter().tenant() : caller.tenant;
  const std::string binding = Binding(request.filter(), query.tenant);
  for (const int state : request.filter().states())
    query.states.push_back(static_cast<v1::JobState>(state));
  query.labels.insert(request.filter().labels().begin(), request.filter().labels().end());
  query.limit = page_size + 1;  // one more tells whether a page follows
  if (!request.page_token().empty()) {
    LF_ASSIGN_OR_RETURN(const std::string position, tokens_.Decode(request.page_token(), binding));
    if (!absl::SimpleAtoi(position, &query.before_ordinal))
      return absl::InternalError("a signed page token holds no ordinal");
  }
  const std::string& wanted = request.filter().tenant();
  if (!wanted.empty() && !caller.Sees(wanted)) return v1::ListJobsResponse();
  LF_ASSIGN_OR_RETURN(std::vector<JobRecord> records, engine_.store().List(query));
  v1::ListJobsResponse response;
  Viewer viewer(engine_, options_.workers());
  const size_t shown = std::min<size_t>(records.size(), page_size);
  for (size_t i = 0; i < shown; ++i) {
    LF_ASSIGN_OR_RETURN(*response.add_jobs(), viewer.View(std::move(records[i])));
  }
  if (records.size() > shown)
    response.set_next_page_token(tokens_.Encode(absl::StrCat(records[shown - 1].ordinal), binding));
  return response;
}

template <typename Response>
absl::StatusOr<Response> Jobs::Apply(const Identity& caller, absl::string_view name,
                                     const Command& command) {
  LF_ASSIGN_OR_RETURN(const JobRecord found, Find(caller, name));
  LF_ASSIGN_OR_RETURN(JobRecord record, engine_.Apply(found.id, command));
  Response response;
  *response.mutable_job() = std::move(record.job);
  return response;
}

absl::StatusOr<v1::CancelJobResponse> Jobs::Cancel(const Identity& caller,
                                                   const v1::CancelJobRequest& request) {
  return Apply<v1::CancelJobResponse>(caller, request.name(), command::Cancel{request.etag()});
}

absl::StatusOr<v1::PauseJobResponse> Jobs::Pause(const Identity& caller,
                                                 const v1::PauseJobRequest& request) {
  return Apply<v1::PauseJobResponse>(caller, request.name(), command::Pause{request.etag()});
}

absl::StatusOr<v1::ResumeJobResponse> Jobs::Resume(const Identity& caller,
                                                   const v1::ResumeJobRequest& request) {
  return Apply<v1::ResumeJobResponse>(caller, request.name(), command::Resume{request.etag()});
}

absl::StatusOr<v1::RetryJobResponse> Jobs::Retry(const Identity& caller,
                                                 const v1::RetryJobRequest& request) {
  return Apply<v1::RetryJobResponse>(caller, request.name(), command::Retry{request.etag()});
}

absl::StatusOr<v1::DeleteJobResponse> Jobs::Delete(const Identity& caller,
                                                   const v1::DeleteJobRequest& request) {
  LF_ASSIGN_OR_RETURN(const JobRecord record, Find(caller, request.name()));
  LF_RETURN_IF_ERROR(CheckEtag(record, request.etag()));
  const v1::JobState state = record.job.status().state();
  if (!IsTerminal(state)) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "JOB_NOT_ENDED",
                     absl::StrCat(request.name(), " is ", ShortEnumName(state),
                                  ", expected a job that has ended"),
                     {{"job", request.name()}, {"state", v1::JobState_Name(state)}});
  }
  LF_RETURN_IF_ERROR(engine_.Delete(record));
  return v1::DeleteJobResponse();
}

}  // namespace latentforge::service
