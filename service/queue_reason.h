// Why no worker can take a job. Pure.
#pragma once

#include <string>
#include <vector>

#include "latentforge/v1/worker_service.pb.h"
#include "service/needs.h"

namespace latentforge::service {

// "needs 12.3 GiB of memory; the largest of 3 workers gives an attempt 8.0 GiB": what the
// workers, those seen lately, lack; empty when one of them can take the job, or did not say
// yet what it is.
std::string QueueReason(const Needs& needs, const std::vector<v1::WorkerInfo>& workers);

}  // namespace latentforge::service
