// The server under load, and jobs for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bench/service/latencies.h"
#include "grpcpp/channel.h"
#include "latentforge/v1/job_service.grpc.pb.h"
#include "latentforge/v1/worker_service.grpc.pb.h"

namespace latentforge::bench {

// Safe for concurrent use.
class Target {
 public:
  // `folder` holds a checkpoint "model" and a text "text.txt"; outputs go nowhere. Several
  // connections, so that none's limit of streams counts.
  Target(const std::string& address, std::filesystem::path folder, int connections);

  v1::WorkerService::Stub& workers(int64_t i) const { return *workers_[Connection(i)]; }
  v1::JobService::Stub& jobs(int64_t i) const { return *jobs_[Connection(i)]; }

  // A valid job that nobody submitted before, with a request_id.
  v1::CreateJobRequest NewJob();

 private:
  size_t Connection(int64_t i) const { return static_cast<size_t>(i) % jobs_.size(); }

  const std::filesystem::path folder_;
  const std::string run_;  // tells the outputs of two runs apart
  std::atomic<int64_t> next_ = 0;
  std::vector<std::unique_ptr<v1::JobService::Stub>> jobs_;
  std::vector<std::unique_ptr<v1::WorkerService::Stub>> workers_;
};

// Submits `count` jobs, `concurrency` at a time; calls `created` with each job's name when its
// answer is there. Returns the wall time.
absl::Duration Submit(Target& target, int64_t count, int concurrency, Latencies& latencies,
                      const std::function<void(const std::string&)>& created = nullptr);

}  // namespace latentforge::bench
