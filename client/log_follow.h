// Reads the logs of a job's attempts, across lost connections.
#pragma once

#include <functional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "base/clock.h"
#include "client/conversion_client.h"
#include "client/job_watch.h"
#include "latentforge/v1/job_service.pb.h"

namespace latentforge::client {

struct LogFollowOptions {
  WatchOptions stream;  // how long and how often to try
  // Asked ten times a second by another thread; true ends the reading. Never true when unset.
  std::function<bool()> interrupted;
  // Why a connection is made anew; called when it was lost.
  std::function<void(const absl::Status&)> on_lost;
};

// Passes every message with entries to `receive`, whose error ends the reading with it. When the
// stream breaks it is opened again behind the last entry. OK when the server has no more to
// say; Cancelled when the user interrupted.
absl::Status FollowLogs(ConversionClient& client, Clock& clock, v1::ReadLogsRequest request,
                        const LogFollowOptions& options,
                        absl::FunctionRef<absl::Status(const v1::ReadLogsResponse&)> receive);

}  // namespace latentforge::client
