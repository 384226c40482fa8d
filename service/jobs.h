// What clients do with jobs, without gRPC.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "latentforge/v1/job_service.pb.h"
#include "service/auth/identity.h"
#include "service/job_engine.h"
#include "service/page_token.h"
#include "service/spec_checker.h"
#include "service/submit_rates.h"

namespace latentforge::service {

struct JobsOptions {
  int32_t max_attempts = 3;
  std::function<std::string()> new_id;
  // What is known of the workers that were seen lately.
  std::function<std::vector<v1::WorkerInfo>()> workers = [] {
    return std::vector<v1::WorkerInfo>();
  };
};

// JobService's unary methods; their contracts are in job_service.proto. A job of a
// tenant that the caller does not see is answered like one that does not exist. Safe
// for concurrent use. Borrows engine and checker.
class Jobs {
 public:
  Jobs(JobEngine& engine, const SpecChecker& checker, PageTokenCodec tokens, JobsOptions options)
      : engine_(engine),
        checker_(checker),
        tokens_(std::move(tokens)),
        options_(std::move(options)) {}

  absl::StatusOr<v1::CreateJobResponse> Create(const Identity& caller,
                                               const v1::CreateJobRequest& request);
  absl::StatusOr<v1::GetJobResponse> Get(const Identity& caller, const v1::GetJobRequest& request);
  absl::StatusOr<v1::ListJobsResponse> List(const Identity& caller,
                                            const v1::ListJobsRequest& request);
  absl::StatusOr<v1::CancelJobResponse> Cancel(const Identity& caller,
                                               const v1::CancelJobRequest& request);
  absl::StatusOr<v1::PauseJobResponse> Pause(const Identity& caller,
                                             const v1::PauseJobRequest& request);
  absl::StatusOr<v1::ResumeJobResponse> Resume(const Identity& caller,
                                               const v1::ResumeJobRequest& request);
  absl::StatusOr<v1::RetryJobResponse> Retry(const Identity& caller,
                                             const v1::RetryJobRequest& request);
  absl::StatusOr<v1::DeleteJobResponse> Delete(const Identity& caller,
                                               const v1::DeleteJobRequest& request);

 private:
  absl::StatusOr<v1::CreateJobResponse> TryCreate(const Identity& caller,
                                                  const v1::CreateJobRequest& request);
  absl::StatusOr<std::optional<v1::CreateJobResponse>> FindRepeated(
      const Identity& caller, const v1::CreateJobRequest& request, const std::string& digest);
  absl::StatusOr<JobRecord> Find(const Identity& caller, absl::string_view name);
  // A response that holds the job after the command.
  template <typename Response>
  absl::StatusOr<Response> Apply(const Identity& caller, absl::string_view name,
                                 const Command& command);

  JobEngine& engine_;
  const SpecChecker& checker_;
  const PageTokenCodec tokens_;
  const JobsOptions options_;
  SubmitRates rates_;
};

}  // namespace latentforge::service
