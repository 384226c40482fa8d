// Clients that go on through faults, and write down what they were told.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "latentforge/v1/job_service.grpc.pb.h"
#include "tests/faults/recorder.h"

namespace latentforge::faults {

struct ClientOptions {
  std::string address;
  std::filesystem::path folder;  // of the cluster: "model", "corpus.txt" and the outputs
  uint64_t seed = 0;
  int submitters = 2;
  int watchers = 4;
};

// Threads that submit jobs (some twice, with one request_id), watch them, resume their watches and
// cancel some, from construction to Stop. A call that fails because of a fault is repeated; one
// that fails otherwise is a failure of the test.
class Clients {
 public:
  Clients(const ClientOptions& options, Recorder& recorder);
  ~Clients() { Stop(); }

  // Ends after the calls that are under way; watches end where they are.
  void Stop();

 private:
  using Random = std::mt19937_64;

  std::unique_ptr<v1::JobService::Stub> Dial() const;
  void Submit(int number);
  void SubmitOne(const std::string& request_id, const v1::CreateJobRequest& request);
  v1::CreateJobRequest NewJob(const std::string& id, Random& random) const;
  void Watch(int number);
  void WatchOne(v1::JobService::Stub& stub, const std::string& job, int64_t from);
  void Cancel();

  const ClientOptions options_;
  Recorder& recorder_;
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace latentforge::faults
