// Checks of request fields that need nothing but the request.
#pragma once

#include "absl/status/status.h"
#include "latentforge/v1/job_service.pb.h"
#include "latentforge/v1/worker_service.pb.h"

namespace latentforge::service {

// Labels and request_id of CreateJob; the specification is SpecChecker's.
absl::Status CheckCreateRequest(const v1::CreateJobRequest& request);

absl::Status CheckFilter(const v1::JobFilter& filter);

// Name, slots, devices and wait; and FAILED_PRECONDITION VERSION_MISMATCH when the
// worker's major.minor is not that of `server_version`.
absl::Status CheckAcquireRequest(const v1::AcquireLeaseRequest& request,
                                 absl::string_view server_version);

}  // namespace latentforge::service
