// Runs one leased attempt from its lease to its report.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/path_roots.h"
#include "latentforge/v1/worker_service.pb.h"
#include "worker/agent/attempt_control.h"
#include "worker/agent/backoff.h"
#include "worker/agent/child_session.h"
#include "worker/agent/lease_client.h"
#include "worker/agent/lease_keeper.h"
#include "worker/agent/log_relay.h"
#include "worker/agent/oom_kills.h"
#include "worker/agent/outcome.h"
#include "worker/agent/scratch.h"

namespace latentforge::agent {

struct AttemptOptions {
  std::filesystem::path convert;     // latentforge-convert
  std::filesystem::path statistics;  // kept by conversions for later ones
  // Beneath which jobs' files lie, besides what a lease says; none: any.
  PathRoots allowed_roots;
  std::string worker;  // our name
  std::string device;  // for jobs that leave it open; empty: left open
  int threads = 0;     // for jobs that leave it open; 0: left open
  // Before and after an attempt; nullopt where the kernel does not say.
  std::function<std::optional<int64_t>()> oom_kills = [] { return CountOomKills("/"); };
  SessionOptions session;
  LogRelayOptions logs;
};

// Safe for concurrent use; each call of Run is one attempt. Borrows everything.
class AttemptRunner {
 public:
  AttemptRunner(LeaseClient& client, Scratch& scratch, const Clock& clock, Random random,
                AttemptOptions options);

  // Blocks until the attempt is reported, its lease is lost, or the control gave
  // up. `grant` holds a lease that has just come.
  void Run(const v1::AcquireLeaseResponse& grant, AttemptControl& control);

 private:
  AttemptFacts Compute(const v1::AcquireLeaseResponse& grant, AttemptControl& control);
  absl::StatusOr<std::filesystem::path> Prepare(const v1::AcquireLeaseResponse& grant,
                                                AttemptControl& control);
  ChildCommand CommandFor(const std::filesystem::path& folder, const PathRoots& roots) const;
  // True when the server took the report.
  bool Report(const v1::CompleteAttemptRequest& outcome, AttemptControl& control);
  // What is said instead of an outcome that the server refuses.
  static v1::CompleteAttemptRequest Refused(const v1::Lease& lease, const absl::Status& status);

  LeaseClient& client_;
  Scratch& scratch_;
  const Clock& clock_;
  const Random random_;
  const AttemptOptions options_;
};

}  // namespace latentforge::agent
