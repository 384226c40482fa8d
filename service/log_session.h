// What one reader of logs is to be sent: the lines of attempts, one attempt after another.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "latentforge/v1/job_service.pb.h"
#include "service/auth/identity.h"
#include "service/log_looks.h"
#include "service/store/store.h"
#include "service/stream_source.h"

namespace latentforge::service {

// JobService.ReadLogs without gRPC; the contract is in job_service.proto. A follower looks again
// whenever Next is called: lines come about once a second. Not safe for concurrent use. Borrows
// store and looks.
class LogSession final : public StreamSource<v1::ReadLogsResponse> {
 public:
  // NotFound JOB_NOT_FOUND or ATTEMPT_NOT_FOUND, InvalidArgument for a bad name and for fields
  // that contradict each other.
  static absl::StatusOr<std::unique_ptr<LogSession>> Start(const Identity& caller, Store& store,
                                                           LogLooks& looks,
                                                           const v1::ReadLogsRequest& request);

  absl::StatusOr<std::optional<v1::ReadLogsResponse>> Next() override;
  bool finished() const override { return finished_; }
  v1::ReadLogsResponse MakeBookmark(absl::Time /*now*/) const override { return {}; }

 private:
  LogSession(Store& store, LogLooks& looks) : store_(store), looks_(looks) {}

  absl::Status ChooseStart(const v1::ReadLogsRequest& request, const JobRecord& record);
  // Where there are no lines. True when the session went on to the next attempt.
  bool Advance(const LogLook& look);
  v1::ReadLogsResponse Take(const std::vector<LogRecord>& lines);

  Store& store_;
  LogLooks& looks_;
  std::string id_;
  bool whole_job_ = false;  // goes on to later attempts
  bool follow_ = false;
  int32_t attempt_ = 0;  // 0: before the first
  int64_t cursor_ = 0;   // sequence of its last line returned
  bool finished_ = false;
};

}  // namespace latentforge::service
