// Says why a job stays queued when no worker can take it.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "latentforge/v1/job.pb.h"

namespace latentforge::client {

// Not safe for concurrent use. Borrows the clock.
class QueueHint {
 public:
  using GetJob = std::function<absl::StatusOr<v1::Job>()>;

  // `address` is the server's, as a worker would name it.
  QueueHint(std::string address, const Clock& clock, GetJob get);

  // A line with the command to type, once for each time that the job has been queued
  // for ten seconds and no worker of the server can take it. Cheap: asks the server once
  // in ten seconds, and only about a queued job.
  std::optional<std::string> Next(const v1::Job& job);

 private:
  const std::string address_;
  const Clock& clock_;
  const GetJob get_;
  std::optional<absl::Duration> next_look_;  // none: the job is not queued
  bool said_ = false;
};

}  // namespace latentforge::client
