// Clients that go on through faults, and write down what they were told.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "latentforge/v1/job_service.grpc.pb.h"
#include "tests/faults/recorder.h"
#include "tests/faults/servers.h"

namespace latentforge::faults {

// Whose jobs a client's are.
struct Tenant {
  std::string name;
  std::string token;
};

struct ClientOptions {
  std::vector<std::string> addresses;  // of the servers; after a fault the next one is asked
  std::vector<Tenant> tenants;         // at least two
  std::filesystem::path folder;        // of the cluster: "model", "corpus.txt" and the outputs
  uint64_t seed = 0;
  int submitters = 2;
  int watchers = 4;
};

// Threads that submit jobs (some twice, with one request_id), watch them, resume their watches,
// pause and cancel some, and try to see other tenants' jobs, from construction to Stop. A call that
// fails because of a fault is repeated at the next server; one that fails otherwise is a failure of
// the test.
class Clients {
 public:
  Clients(const ClientOptions& options, Recorder& recorder);
  ~Clients() { Stop(); }

  // Ends after the calls that are under way; watches end where they are.
  void Stop();

 private:
  using Random = std::mt19937_64;

  const std::string& TokenOf(const std::string& tenant) const;
  void Submit(int number);
  std::string SubmitOne(const Tenant& tenant, const v1::CreateJobRequest& request);
  v1::CreateJobRequest NewJob(const std::string& id, Random& random) const;
  void Watch(int number);
  void Change();
  void Cancel(Servers& servers, const KnownJob& job);
  void PauseAndResume(Servers& servers, const KnownJob& job, absl::Duration pause);
  void Pry();
  void PryOnce(Servers& servers, const Tenant& tenant, const std::string& job);
  void ListAll(Servers& servers, const Tenant& tenant);

  const ClientOptions options_;
  Recorder& recorder_;
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace latentforge::faults
