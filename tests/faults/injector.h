// Faults of whole processes: kills, stops, drains.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/system/cluster.h"

namespace latentforge::faults {

// One fault at a time, chosen by a seed. Not safe for concurrent use. Borrows the cluster.
class Injector {
 public:
  // `workers` run and are started again when a fault ends them.
  Injector(Cluster& cluster, std::vector<std::string> workers, uint64_t seed);

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

  const std::string& AnyWorker() { return workers_[random_() % workers_.size()]; }
  pid_t LastProcess() const;

  Cluster& cluster_;
  const std::vector<std::string> workers_;
  std::mt19937_64 random_;
  std::map<std::string, int64_t> counts_;
};

}  // namespace latentforge::faults
