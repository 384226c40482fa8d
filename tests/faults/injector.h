// Faults of whole processes and of what connects them.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/faults/fault_proxy.h"
#include "tests/system/cluster.h"

namespace latentforge::faults {

// Connections of one kind, such as those between workers and servers, by proxy.
struct Link {
  std::string name;
  std::vector<FaultProxy*> proxies;
};

struct Targets {
  // They run, and are started again so when a fault ends them.
  std::map<std::string, WorkerOptions> workers;
  Link worker_link;
  Link client_link;
  Link database_link;  // without proxies where the database is a file
};

// One fault at a time, chosen by a seed. Not safe for concurrent use. Borrows cluster and proxies.
class Injector {
 public:
  Injector(Cluster& cluster, Targets targets, uint64_t seed);

  // Makes one fault, and what it takes to go on after it.
  void Inject();

  // How many of each kind there were.
  const std::map<std::string, int64_t>& counts() const { return counts_; }

 private:
  void KillServer();
  void DrainServer();
  void StopServer();
  void KillWorker();
  void DrainWorker();
  void StopWorker();
  void KillProcess();
  void StopProcess();
  void CutConnections();
  void HalfClose();
  void Stall();
  void Delay();
  void LoseRequests();
  void LoseAnswers();
  void Refuse();
  void PartitionWorkers();
  void EndDatabase();

  size_t AnyServer() { return random_() % cluster_.servers(); }
  const std::string& AnyWorker();
  FaultProxy& AnyProxy();
  pid_t LastProcess() const;
  static void Disturb(const std::vector<FaultProxy*>& proxies, const Passage& passage,
                      absl::Duration length);

  Cluster& cluster_;
  const Targets targets_;
  std::mt19937_64 random_;
  std::map<std::string, int64_t> counts_;
};

}  // namespace latentforge::faults
