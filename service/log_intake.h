// Takes the lines of attempts' logs from workers, without ever being in the way of state.
#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "latentforge/v1/worker_service.pb.h"
#include "service/auth/identity.h"
#include "service/job_engine.h"
#include "service/log_record.h"

namespace latentforge::service {

struct LogIntakeOptions {
  LogLimits keep;
  // Appends at a time. One more is refused, so that the threads for calls and the store are
  // left to everything else; the worker keeps its lines and tries again.
  int writers = 2;
};

// WorkerService.AppendLogs without gRPC; its contract is in worker_service.proto. Safe for
// concurrent use. Borrows the engine.
class LogIntake {
 public:
  LogIntake(JobEngine& engine, const LogIntakeOptions& options)
      : engine_(engine), options_(options) {}

  absl::StatusOr<v1::AppendLogsResponse> Append(const Identity& caller,
                                                const v1::AppendLogsRequest& request);

 private:
  // The job's id. CheckLease's errors.
  absl::StatusOr<std::string> CheckHeld(const Identity& caller, const v1::Lease& lease);
  absl::StatusOr<v1::AppendLogsResponse> Write(const Identity& caller,
                                               const v1::AppendLogsRequest& request);

  JobEngine& engine_;
  const LogIntakeOptions options_;
  std::atomic<int> writing_ = 0;
};

}  // namespace latentforge::service
