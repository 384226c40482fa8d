// Why no worker can take a job, or none may yet. Pure.
#pragma once

#include <string>
#include <vector>

#include "latentforge/v1/worker_service.pb.h"
#include "service/needs.h"
#include "service/tenant_table.h"

namespace latentforge::service {

// "needs 12.3 GiB of memory; the largest of 3 workers gives an attempt 8.0 GiB": what the
// workers, those seen lately, lack; empty when one of them can take the job, or did not say
// yet what it is.
std::string QueueReason(const Needs& needs, const std::vector<v1::WorkerInfo>& workers);

// What a tenant has running, and what it may. A plain value.
struct TenantRuns {
  std::string tenant;
  TenantLimits limits;
  int64_t jobs = 0;
  int64_t gpus = 0;
};

// "tenant search has 3 jobs running, and its max_running_jobs in the tenants file is 3": empty
// when the tenant may have one more such job running on one of the workers that can take it.
std::string LimitReason(const TenantRuns& runs, const Needs& needs,
                        const std::vector<v1::WorkerInfo>& workers);

}  // namespace latentforge::service
