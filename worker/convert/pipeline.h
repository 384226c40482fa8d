// One attempt of a conversion: fetch, calibrate, factorise, evaluate, publish.
#pragma once

#include <filesystem>

#include "absl/status/status.h"
#include "base/clock.h"
#include "worker/convert/event_writer.h"
#include "worker/convert/job_spec.h"
#include "worker/convert/stop_token.h"

namespace latentforge::convert {

// Where a conversion keeps what it does not publish.
struct ConversionFolders {
  std::filesystem::path work;        // of this job
  std::filesystem::path statistics;  // of all jobs, for StatisticsStore; empty: none
  // A SharedDeadline behind which nothing is published any more; empty: none.
  std::filesystem::path lease = {};
};

// Runs the job in its work folder, goes on from what earlier attempts left there, and
// prints events; the last one is a result or an error. Cancelled, without a last
// event, when `stop` was requested. The status carries a reason
// (worker/convert/error_reason.h).
absl::Status RunConversion(const JobSpec& spec, const ConversionFolders& folders,
                           EventWriter& events, const StopToken& stop, const Clock& clock);

// Prints an error that came before the conversion could begin.
void ReportEarlyError(const absl::Status& status, EventWriter& events);

}  // namespace latentforge::convert
